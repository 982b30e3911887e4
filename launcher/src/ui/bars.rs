//! Bars on a terminal: one for each running job, one for all of them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::figures::clock;
use super::screen::coloured;
use super::track::{Progress, Standing, Track};

/// Steps of a bar: shares are shown in thousandths.
const STEPS: u64 = 1000;

/// The bars of a session.
pub struct Bars {
    all: MultiProgress,
    overall: Option<ProgressBar>,
    jobs: HashMap<String, ProgressBar>,
}

impl Bars {
    /// Bars on stderr. A single job needs no overall bar.
    pub fn new(track: &Track) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let overall = (track.jobs.len() > 1).then(|| {
            let bar = all.add(bar());
            bar.set_prefix("candidates");
            bar
        });
        Self { all, overall, jobs: HashMap::new() }
    }

    /// Draws the track.
    pub fn draw(&mut self, track: &Track, now: Instant) {
        for job in &track.jobs {
            match job.standing {
                Standing::Running => self.draw_job(job, now),
                _ => self.end_job(&job.name),
            }
        }
        if let Some(overall) = &self.overall {
            overall.set_position(thousandths(track.share()));
            overall.set_message(track.words(now));
        }
    }

    fn draw_job(&mut self, job: &Progress, now: Instant) {
        let named = self.overall.is_some();
        let bar = self.jobs.entry(job.name.clone()).or_insert_with(|| {
            let bar = bar();
            match &self.overall {
                Some(overall) => self.all.insert_before(overall, bar),
                None => self.all.add(bar),
            }
        });
        let (phase, share, words) = match &job.phase {
            Some(at) => {
                let left = at.left(now).map_or("-:--:--".to_owned(), clock);
                (at.phase.name(), at.share(), format!("{}   {left}", at.words()))
            }
            None => ("start", 0.0, String::new()),
        };
        bar.set_prefix(phase);
        bar.set_position(thousandths(share));
        bar.set_message(if named { format!("{words}   {}", job.name) } else { words });
    }

    fn end_job(&mut self, name: &str) {
        if let Some(bar) = self.jobs.remove(name) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }

    /// Prints a line above the bars.
    pub fn say(&self, text: &str) {
        let text = match coloured() {
            true => text.to_owned(),
            false => anstream::adapter::strip_str(text).to_string(),
        };
        // A terminal that is gone misses a line, nothing else.
        drop(self.all.println(text));
    }

    /// Takes the bars away.
    pub fn end(&self) {
        drop(self.all.clear());
    }
}

fn bar() -> ProgressBar {
    let template = match coloured() {
        true => "{prefix:11} {bar:22.green/black.bright} {msg}",
        false => "{prefix:11} {bar:22} {msg}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(STEPS).with_style(style.progress_chars("━╸━"));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share between 0 and 1")]
fn thousandths(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * STEPS as f64) as u64
}
