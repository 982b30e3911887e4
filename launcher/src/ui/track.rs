//! What every job is doing right now, gathered from notices, for bars and lines alike.

use std::time::{Duration, Instant};

use qlaunch_shared::Error;
use qlaunch_shared::protocol::{Event, EventBody, Level, Phase};

use crate::follow::Said;
use crate::journal::Ending;
use crate::session::Notice;

/// What is known of the jobs that are watched.
#[derive(Debug, Clone)]
pub struct Track {
    /// The jobs in the run's order.
    pub jobs: Vec<Progress>,
    begun: Instant,
}

/// How far one job is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub standing: Standing,
    /// The phase it is in, once it said so.
    pub phase: Option<PhaseProgress>,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has not begun.
    Waiting,
    /// It runs.
    Running,
    /// It was done before this session.
    Kept,
    /// It was done in this session.
    Done,
    /// It did not end well.
    Failed,
}

/// How far a phase is.
#[derive(Debug, Clone, PartialEq)]
pub struct PhaseProgress {
    /// Which.
    pub phase: Phase,
    /// How much is done.
    pub done: u64,
    /// How much there is to do.
    pub total: u64,
    /// Layer at work and layers in all, where the phase has them.
    pub layer: Option<(usize, usize)>,
    /// Tokens per second, where tokens flow.
    pub tokens_per_second: Option<f64>,
    /// When it began.
    pub begun: Instant,
}

impl PhaseProgress {
    /// The share that is done, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a share for the eye")]
    pub fn share(&self) -> f64 {
        if self.total == 0 { 0.0 } else { (self.done as f64 / self.total as f64).min(1.0) }
    }

    /// How long the rest takes if it goes on like this; none before anything is done.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let share = self.share();
        let spent = now.saturating_duration_since(self.begun).as_secs_f64();
        (share > 0.0).then(|| Duration::from_secs_f64((spent * (1.0 - share) / share).min(1e9)))
    }

    /// `layer 3/8   21,400 tok/s`, or the share where there are no layers.
    pub fn words(&self) -> String {
        let mut words = match self.layer {
            Some((layer, layers)) => format!("layer {layer}/{layers}"),
            None => format!("{:.0}%", self.share() * 100.0),
        };
        if let Some(speed) = self.tokens_per_second {
            words.push_str(&format!("   {} tok/s", super::figures::grouped(speed)));
        }
        words
    }
}

/// Shares of a job's time by phase, for the time that is left: rough, and only ever called "about".
fn weight(phase: Phase) -> (f64, f64) {
    match phase {
        Phase::Load => (0.0, 0.02),
        Phase::Calibrate => (0.02, 0.43),
        Phase::Quantize => (0.45, 0.10),
        Phase::Audit => (0.55, 0.02),
        Phase::Reference => (0.57, 0.03),
        Phase::Evaluate => (0.60, 0.40),
    }
}

impl Track {
    /// Jobs that have not begun.
    pub fn new(names: impl IntoIterator<Item = String>, now: Instant) -> Self {
        let job = |name| Progress { name, standing: Standing::Waiting, phase: None };
        Self { jobs: names.into_iter().map(job).collect(), begun: now }
    }

    /// The name to show: none where there is only one job.
    pub fn label<'a>(&self, job: &'a str) -> Option<&'a str> {
        (self.jobs.len() > 1).then_some(job)
    }

    /// How many jobs stand somewhere.
    pub fn count(&self, standing: Standing) -> usize {
        self.jobs.iter().filter(|job| job.standing == standing).count()
    }

    /// Takes a notice in.
    pub fn take(&mut self, notice: &Notice<'_>, now: Instant) {
        let (name, standing) = match notice {
            Notice::Kept { job } => (*job, Standing::Kept),
            Notice::Gone { job } => (*job, Standing::Waiting),
            Notice::Started { job, .. } | Notice::TakenOver { job, .. } => (*job, Standing::Running),
            Notice::Accepted { job } => (*job, Standing::Done),
            Notice::GivenUp { job, .. } => (*job, Standing::Failed),
            Notice::Ended { job, ending: Ending::Failed { .. } } => (*job, Standing::Failed),
            Notice::Ended {
                job,
                ending: Ending::Interrupted | Ending::Lost { .. } | Ending::Unstarted { .. },
            } => (*job, Standing::Waiting),
            Notice::Said { job, said: Said::Event(event) } => return self.hear(job, event, now),
            Notice::Ended { .. }
            | Notice::Said { .. }
            | Notice::Stopping
            | Notice::Waiting { .. }
            | Notice::Restarted { .. }
            | Notice::LinkLost { .. }
            | Notice::LinkBack
            | Notice::Held { .. } => return,
        };
        if let Some(job) = self.jobs.iter_mut().find(|job| job.name == name) {
            job.standing = standing;
            job.phase = None;
        }
    }

    fn hear(&mut self, name: &str, event: &Event, now: Instant) {
        let Some(job) = self.jobs.iter_mut().find(|job| job.name == name) else {
            return;
        };
        match &event.body {
            EventBody::Phase { phase, total, .. } => {
                let (layer, tokens_per_second) = (None, None);
                job.phase = Some(PhaseProgress {
                    phase: *phase,
                    done: 0,
                    total: *total,
                    layer,
                    tokens_per_second,
                    begun: now,
                });
            }
            EventBody::Progress { phase, done, layer, layers, tokens_per_second } => {
                if let Some(at) = job.phase.as_mut().filter(|at| at.phase == *phase) {
                    at.done = *done;
                    at.layer = layer.zip(*layers).or(at.layer);
                    at.tokens_per_second = tokens_per_second.or(at.tokens_per_second);
                }
            }
            EventBody::PhaseDone { phase, .. } => {
                if let Some(at) = job.phase.as_mut().filter(|at| at.phase == *phase) {
                    at.done = at.total;
                }
            }
            _ => {}
        }
    }

    /// The share of this session's jobs that is done, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a share for the eye")]
    pub fn share(&self) -> f64 {
        let mine = self.jobs.iter().filter(|job| job.standing != Standing::Kept);
        let (mut done, mut all) = (0.0, 0_usize);
        for job in mine {
            all += 1;
            done += match (&job.standing, &job.phase) {
                (Standing::Done | Standing::Failed, _) => 1.0,
                (Standing::Running, Some(at)) => weight(at.phase).0 + weight(at.phase).1 * at.share(),
                _ => 0.0,
            };
        }
        if all == 0 { 1.0 } else { done / all as f64 }
    }

    /// `3 of 5 done · 1 running (evaluate 12/32) · 1 waiting   about 14 s left`.
    pub fn words(&self, now: Instant) -> String {
        let done = self.count(Standing::Done) + self.count(Standing::Kept);
        let mut words = vec![format!("{done} of {} done", self.jobs.len())];
        let running: Vec<&Progress> =
            self.jobs.iter().filter(|job| job.standing == Standing::Running).collect();
        if let Some(first) = running.first() {
            let phase = first.phase.as_ref().map_or(String::new(), |at| match at.layer {
                Some((layer, layers)) => format!(" ({} {layer}/{layers})", at.phase.name()),
                None => format!(" ({})", at.phase.name()),
            });
            words.push(format!("{} running{phase}", running.len()));
        }
        for (standing, word) in [(Standing::Waiting, "waiting"), (Standing::Failed, "failed")] {
            if self.count(standing) > 0 {
                words.push(format!("{} {word}", self.count(standing)));
            }
        }
        let share = self.share();
        let spent = now.saturating_duration_since(self.begun).as_secs_f64();
        let mut words = words.join(" · ");
        if share > 0.02 && share < 1.0 {
            let left = Duration::from_secs_f64((spent * (1.0 - share) / share).min(1e9));
            words.push_str(&format!("   about {} left", super::figures::roughly(left)));
        }
        words
    }
}

/// What a notice says in a line of its own, with the weight of it; most notices only move bars.
///
/// A single job is not named, and how it failed is told by the command itself.
pub fn line(notice: &Notice<'_>, track: &Track) -> Option<(Level, String)> {
    let named = |job: &str, text: &str| match track.label(job) {
        Some(job) => format!("{job}: {text}"),
        None => text.to_owned(),
    };
    let failed = |job: &str, error: &Error| {
        let job = track.label(job)?;
        Some((Level::Warning, format!("{job} failed: {}", error.message)))
    };
    Some(match notice {
        Notice::Gone { job } => (Level::Warning, named(job, "its results are gone, so it runs again")),
        Notice::TakenOver { job, attempt } => {
            (Level::Info, named(job, &format!("still running (attempt {attempt}), watched again")))
        }
        Notice::Started { job, attempt } if *attempt > 1 => {
            (Level::Info, named(job, &format!("attempt {attempt}")))
        }
        Notice::Ended { job, ending } => match ending {
            Ending::Lost { error, .. } | Ending::Unstarted { error } => {
                (Level::Warning, named(job, &error.message))
            }
            Ending::Failed { error } => return failed(job, error),
            Ending::Interrupted => (Level::Info, named(job, "stopped at a safe point")),
            Ending::Done => return None,
        },
        Notice::GivenUp { job, error } => return failed(job, error),
        Notice::Waiting { job, reason: Some(reason) } => {
            (Level::Info, named(job, &format!("waits: {reason}")))
        }
        Notice::Waiting { job, reason: None } => (Level::Info, named(job, "runs")),
        Notice::Restarted { job, restart } => {
            (Level::Info, named(job, &format!("started again by the scheduler ({restart})")))
        }
        Notice::LinkLost { error } => {
            (Level::Warning, format!("{}; jobs go on, and the link is tried again", error.message))
        }
        Notice::LinkBack => (Level::Info, "the link is back".to_owned()),
        Notice::Held { why } => (Level::Info, format!("the rest is handed over later: {why}")),
        Notice::Stopping => (Level::Info, "stopping; press Ctrl-C again to stop at once".to_owned()),
        Notice::Said { job, said } => {
            let (level, text) = words(said)?;
            (level, named(job, &text))
        }
        _ => return None,
    })
}

/// What a worker's word says beyond progress.
fn words(said: &Said) -> Option<(Level, String)> {
    match said {
        Said::Event(event) => match &event.body {
            EventBody::Note { level, message } => Some((*level, message.clone())),
            _ => None,
        },
        Said::Garbage(text) => Some((Level::Warning, format!("a line of its events cannot be read: {text}"))),
        Said::Gap(missing) => Some((Level::Warning, format!("{missing} lines of its events are missing"))),
    }
}

#[cfg(test)]
#[path = "track_tests.rs"]
mod tests;
