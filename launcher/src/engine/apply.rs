//! One entry of the journal changes the state.

use qlaunch_shared::ErrorKind;

use super::state::{Job, Stage, State};
use crate::journal::{Ending, Entry, JobName, Line, Loss};

/// The state that a whole journal tells.
pub fn fold(lines: &[Line]) -> State {
    lines.iter().fold(State::default(), apply)
}

/// The state after one more line. Entries about jobs that the run does not have change nothing.
#[must_use]
pub fn apply(mut state: State, line: &Line) -> State {
    match &line.entry {
        Entry::Opened { fresh, jobs, .. } => return open(state, jobs, *fresh),
        Entry::Stopping => state.stopping = true,
        Entry::Judged { .. } => {}
        Entry::Attached => {
            for job in &mut state.jobs {
                if let Stage::Running { told, .. } = &mut job.stage {
                    *told = None;
                }
            }
        }
        Entry::Unwanted { job } => change(&mut state, job, |job| job.unwanted = true),
        Entry::Submitting { job, attempt, array } => change(&mut state, job, |job| {
            job.attempt = *attempt;
            job.array.clone_from(array);
            job.restart = 0;
            job.stage = Stage::Submitting;
        }),
        Entry::Submitted { job, handle, .. } => change(&mut state, job, |job| {
            job.stage = Stage::Running { handle: handle.clone(), told: None };
        }),
        Entry::NotSubmitted { job, .. } => change(&mut state, job, |job| job.stage = Stage::Waiting),
        Entry::Ended { job, ending, restart, .. } => change(&mut state, job, |job| {
            job.restart = *restart;
            end(job, ending);
        }),
        // Moving results up can be done again, so the intent alone leaves the job where it is.
        Entry::Accepting { .. } => {}
        Entry::Accepted { job, .. } => change(&mut state, job, |job| job.stage = Stage::Accepted),
        Entry::GivenUp { job, error } => {
            change(&mut state, job, |job| job.stage = Stage::Failed { error: error.clone() });
        }
        Entry::Cancelling { job, .. } => change(&mut state, job, |job| {
            if let Stage::Running { told, .. } = &mut job.stage {
                *told = Some(line.at);
            }
        }),
    }
    state
}

fn change(state: &mut State, name: &str, how: impl FnOnce(&mut Job)) {
    if let Some(job) = state.job_mut(name) {
        how(job);
    }
}

fn end(job: &mut Job, ending: &Ending) {
    job.stage = match ending {
        Ending::Done => Stage::Done,
        Ending::Failed { error } => Stage::Failed { error: error.clone() },
        Ending::Interrupted => {
            job.losses += 1;
            Stage::Stopped { error: None }
        }
        Ending::Lost { error, class } => {
            match class {
                Loss::Infrastructure => job.losses += 1,
                Loss::Preempted => job.preemptions += 1,
                Loss::Timeout => job.timeouts += 1,
            }
            Stage::Stopped { error: Some(error.clone()) }
        }
        Ending::Unstarted { .. } => Stage::Waiting,
    };
}

/// A new session: what failed or stopped waits again, what is done or was ended by a gate stays so unless a fresh start was asked for.
fn open(old: State, jobs: &[JobName], fresh: bool) -> State {
    let job = |named: &JobName| {
        let known = old.job(&named.name);
        let stage = match known.map(|job| job.stage.clone()) {
            // A gate ended it, and would again.
            Some(Stage::Failed { error }) if error.kind == ErrorKind::Gate && !fresh => {
                Stage::Failed { error }
            }
            None | Some(Stage::Failed { .. } | Stage::Stopped { .. }) => Stage::Waiting,
            Some(Stage::Done | Stage::Accepted) if fresh => Stage::Waiting,
            // A job that runs is taken over, and told again if it must stop.
            Some(Stage::Running { handle, .. }) => Stage::Running { handle, told: None },
            Some(stage) => stage,
        };
        let (attempt, restart) = known.map_or((0, 0), |job| (job.attempt, job.restart));
        let array = known.and_then(|job| job.array.clone());
        Job {
            name: named.name.clone(),
            baseline: named.baseline,
            attempt,
            array,
            restart,
            losses: 0,
            preemptions: 0,
            timeouts: 0,
            unwanted: false,
            stage,
        }
    };
    State::of(jobs.iter().map(job).collect())
}
