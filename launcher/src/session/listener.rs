//! What a session tells whoever watches it. Watchers never reach into its state.

use qlaunch_shared::Error;

use crate::follow::Said;
use crate::journal::Ending;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice<'a> {
    /// A job was done in an earlier session.
    Kept {
        /// Its name.
        job: &'a str,
    },
    /// Results of an earlier session are gone, so that the job runs again.
    Gone {
        /// Its name.
        job: &'a str,
    },
    /// An attempt was handed over.
    Started {
        /// The job's name.
        job: &'a str,
        /// Which try.
        attempt: u32,
    },
    /// An attempt of an earlier session still runs and is watched again.
    TakenOver {
        /// The job's name.
        job: &'a str,
        /// Which try.
        attempt: u32,
    },
    /// A job in a queue waits for something else than before, or for nothing any more.
    Waiting {
        /// The job's name.
        job: &'a str,
        /// What it waits for; none when it runs.
        reason: Option<&'a str>,
    },
    /// The scheduler started a job again by itself.
    Restarted {
        /// The job's name.
        job: &'a str,
        /// How often it has done so.
        restart: u32,
    },
    /// The host does not answer; jobs go on without us.
    LinkLost {
        /// Why.
        error: &'a Error,
    },
    /// The host answers again.
    LinkBack,
    /// A limit on jobs is reached: the rest is handed over later.
    Held {
        /// Which, in the scheduler's words.
        why: &'a str,
    },
    /// A worker said something.
    Said {
        /// The job's name.
        job: &'a str,
        /// What.
        said: &'a Said,
    },
    /// An attempt is over.
    Ended {
        /// The job's name.
        job: &'a str,
        /// How.
        ending: &'a Ending,
    },
    /// A job's results are in place.
    Accepted {
        /// Its name.
        job: &'a str,
    },
    /// A job will not be tried again.
    GivenUp {
        /// Its name.
        job: &'a str,
        /// Why.
        error: &'a Error,
    },
    /// Somebody asked to stop; running jobs are told.
    Stopping,
}

/// Whoever watches a session.
pub trait Listener {
    /// Something happened.
    fn notice(&mut self, notice: &Notice<'_>);

    /// A moment has passed: about ten times a second.
    fn tick(&mut self) {}
}
