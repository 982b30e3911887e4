//! What every backend can do.

use std::path::PathBuf;

use qlaunch_shared::Result;
use qlaunch_shared::protocol::{AttemptFolder, JobFolder};

use crate::journal::{Ending, Handle};

/// One attempt of one job, as a backend sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The job's folder, absolute on the host that runs it.
    pub folder: PathBuf,
    /// Which try, from 1.
    pub attempt: u32,
}

impl Ticket {
    /// The job's folder.
    pub fn job(&self) -> JobFolder {
        JobFolder(self.folder.clone())
    }

    /// The attempt's folder.
    pub fn attempt(&self) -> AttemptFolder {
        self.job().attempt(self.attempt)
    }

    /// What the attempt is recognised by on its host: no other attempt of any run has it.
    pub fn token(&self) -> String {
        self.attempt().0.display().to_string()
    }
}

/// What became of an attempt so far.
#[derive(Debug, Clone, PartialEq)]
pub enum Poll {
    /// It is waiting or running.
    Running,
    /// It is over.
    Ended(Ending),
}

/// A place where jobs run.
pub trait Backend {
    /// Hands over an attempt whose `spec.json` and `job.sh` are in place.
    fn submit(&self, ticket: &Ticket) -> impl Future<Output = Result<Handle>>;

    /// Looks for an attempt that may have been handed over by a launcher that died before it could note so.
    fn find(&self, ticket: &Ticket) -> impl Future<Output = Result<Option<Handle>>>;

    /// Asks what became of an attempt.
    fn poll(&self, ticket: &Ticket, handle: &Handle) -> impl Future<Output = Result<Poll>>;

    /// Asks an attempt to stop at a safe point.
    fn cancel(&self, handle: &Handle) -> impl Future<Output = Result<()>>;

    /// Ends an attempt at once.
    fn kill(&self, handle: &Handle) -> impl Future<Output = Result<()>>;
}
