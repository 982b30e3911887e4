//! What to do next: a pure function of what is known, the time and the policy.

use qlaunch_shared::{Error, ErrorKind};

use super::state::{Job, Stage, State};

/// The rules that a person or a cluster sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Jobs at a time.
    pub jobs: usize,
    /// Most jobs that are handed over as tasks of one array; fewer than two where there are no arrays.
    pub array: usize,
    /// Tries of a job that is interrupted or lost.
    pub attempts: u32,
    /// Milliseconds that a job has to stop when it is told to, before it is killed.
    pub grace: u64,
    /// Whether candidates are handed over before their baselines are done, because the scheduler can hold them back.
    pub ahead: bool,
    /// Milliseconds since the Unix epoch before which nothing is handed over, where no scheduler can be told so.
    pub begin: Option<u64>,
}

/// Further tries after more important jobs took the place: that says nothing against the job.
const PREEMPTIONS: u32 = 20;
/// Tries that may end with the time limit: the second one goes on where the first was stopped, or never ends either.
const TIMEOUTS: u32 = 2;

/// Something to do at the edge.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Hand over a new attempt.
    Submit {
        /// Which job.
        job: String,
        /// Which try.
        attempt: u32,
    },
    /// Hand over new attempts of several jobs that are alike, as tasks of one array.
    SubmitArray {
        /// Which jobs, and which try of each.
        tasks: Vec<(String, u32)>,
    },
    /// Find out whether an attempt was handed over by a launcher that died.
    Find {
        /// Which job.
        job: String,
        /// Which try.
        attempt: u32,
    },
    /// Move the results of an attempt into place.
    Accept {
        /// Which job.
        job: String,
        /// Which try.
        attempt: u32,
    },
    /// Do not try it again in this session.
    GiveUp {
        /// Which job.
        job: String,
        /// Why.
        error: Error,
    },
    /// Tell a running attempt to stop.
    Cancel {
        /// Which job.
        job: String,
        /// Whether to end it at once.
        kill: bool,
    },
}

/// What to do now. Doing all of it and asking again at the same moment gives nothing more to do.
pub fn decide(state: &State, now: u64, policy: &Policy) -> Vec<Action> {
    let early = policy.begin.is_some_and(|begin| now < begin);
    let mut free = if early { 0 } else { policy.jobs.saturating_sub(state.running()) };
    let (mut actions, mut alike) = (Vec::new(), Vec::new());
    for job in &state.jobs {
        let action = next(job, state, now, policy);
        if let Some(Action::Submit { job: name, attempt }) = &action {
            if free == 0 {
                continue;
            }
            free -= 1;
            // Candidates ask for the same and wait for the same baselines.
            if !job.baseline && policy.array > 1 {
                alike.push((name.clone(), *attempt));
                continue;
            }
        }
        actions.extend(action);
    }
    actions.extend(alike.chunks(policy.array.max(1)).map(|tasks| match tasks {
        [(job, attempt)] => Action::Submit { job: job.clone(), attempt: *attempt },
        tasks => Action::SubmitArray { tasks: tasks.to_vec() },
    }));
    actions
}

/// Whether nothing is left to do or to wait for.
pub fn is_over(state: &State) -> bool {
    state.jobs.iter().all(|job| match job.stage {
        Stage::Accepted | Stage::Failed { .. } => true,
        Stage::Waiting | Stage::Stopped { .. } => state.stopping,
        Stage::Submitting | Stage::Running { .. } | Stage::Done => false,
    })
}

fn next(job: &Job, state: &State, now: u64, policy: &Policy) -> Option<Action> {
    let (name, attempt) = (job.name.clone(), job.attempt);
    let unwanted = || {
        let error = Error::new(ErrorKind::Interrupted, "cancelled by a person");
        Some(Action::GiveUp { job: job.name.clone(), error })
    };
    match &job.stage {
        Stage::Submitting => Some(Action::Find { job: name, attempt }),
        Stage::Done => Some(Action::Accept { job: name, attempt }),
        Stage::Running { told, .. } if state.stopping || job.unwanted => stop(name, *told, now, policy),
        Stage::Waiting | Stage::Stopped { .. } if state.stopping => None,
        Stage::Waiting | Stage::Stopped { .. } if job.unwanted => unwanted(),
        Stage::Waiting => wait(job, state, policy),
        Stage::Stopped { error } if is_enough(job, policy) => {
            let stopped = Error::new(ErrorKind::Resumable, "the worker was stopped from outside");
            let error = error.clone().unwrap_or(stopped);
            let error = error
                .context(format!("given up after {} tries", job.losses + job.preemptions + job.timeouts));
            Some(Action::GiveUp { job: name, error })
        }
        // Its baselines may be gone by now.
        Stage::Stopped { .. } => wait(job, state, policy),
        Stage::Running { .. } | Stage::Accepted | Stage::Failed { .. } => None,
    }
}

/// Whether a job has been lost often enough.
const fn is_enough(job: &Job, policy: &Policy) -> bool {
    job.losses >= policy.attempts || job.preemptions > PREEMPTIONS || job.timeouts >= TIMEOUTS
}

fn stop(job: String, told: Option<u64>, now: u64, policy: &Policy) -> Option<Action> {
    match told {
        None => Some(Action::Cancel { job, kill: false }),
        Some(told) if now.saturating_sub(told) >= policy.grace => Some(Action::Cancel { job, kill: true }),
        Some(_) => None,
    }
}

/// A candidate waits for all baselines: what it is measured against must be there. Without one it is not run at all,
/// since hours of work that cannot be judged are worth less than an early error.
fn wait(job: &Job, state: &State, policy: &Policy) -> Option<Action> {
    let name = job.name.clone();
    if !job.baseline {
        // They stand first.
        for baseline in state.jobs.iter().take_while(|other| other.baseline) {
            match &baseline.stage {
                Stage::Accepted => {}
                // It is handed over with the order to wait for the baseline.
                Stage::Running { .. } if policy.ahead => {}
                Stage::Failed { .. } => {
                    let reason = format!("not run, because its baseline `{}` failed", baseline.name);
                    return Some(Action::GiveUp {
                        job: name,
                        error: Error::new(ErrorKind::Candidates, reason),
                    });
                }
                _ => return None,
            }
        }
    }
    Some(Action::Submit { job: name, attempt: job.attempt + 1 })
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
