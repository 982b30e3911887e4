//! What every backend can do.

use std::path::PathBuf;

use qlaunch_shared::protocol::{AttemptFolder, JobFolder};
use qlaunch_shared::{Error, Result};

use crate::journal::{Ending, Handle};

/// One attempt of one job, as a backend sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The job's folder, absolute on the host that runs it.
    pub folder: PathBuf,
    /// Which try, from 1.
    pub attempt: u32,
    /// How often the scheduler started this attempt again by itself; each time has a folder of its own.
    pub restart: u32,
    /// What the attempt is recognised by on its host: no other attempt of any run has it. Letters, digits, `-`, `.`, `_`.
    pub token: String,
    /// The array that it was handed over with.
    pub array: Option<ArrayTicket>,
}

/// A task of an array, as a backend sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayTicket {
    /// The array's folder, with its script `job.sh`, absolute on the host that runs it.
    pub folder: PathBuf,
    /// What the array is recognised by: no other array or attempt of any run has it.
    pub token: String,
    /// Which of its tasks, from 0.
    pub index: u32,
}

impl Ticket {
    /// The job's folder.
    pub fn job(&self) -> JobFolder {
        JobFolder(self.folder.clone())
    }

    /// The folder that the attempt's newest start writes to.
    pub fn attempt(&self) -> AttemptFolder {
        match self.restart {
            0 => self.first(),
            restart => {
                let mut path = self.first().0.into_os_string();
                path.push(format!(".{restart}"));
                AttemptFolder(path.into())
            }
        }
    }

    /// The folder of the attempt's first start, where its log is too.
    pub fn first(&self) -> AttemptFolder {
        self.job().attempt(self.attempt)
    }

    /// The same attempt, started again so often.
    #[must_use]
    pub fn restarted(&self, restart: u32) -> Self {
        Self { restart, ..self.clone() }
    }
}

/// What became of an attempt so far.
#[derive(Debug, Clone, PartialEq)]
pub enum Poll {
    /// It is waiting or running.
    Running {
        /// How often the scheduler started it again.
        restart: u32,
        /// What it waits for, if it does not run.
        waiting: Option<String>,
    },
    /// It is over.
    Ended {
        /// How often the scheduler started it again.
        restart: u32,
        /// How it ended.
        ending: Ending,
    },
}

/// What a backend says to a job or an array of them that is handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handed {
    /// It is taken.
    Taken(Handle),
    /// Not now: a limit on jobs is reached.
    Later(String),
}

/// A place where jobs run.
///
/// An error of the kind `Unreachable` says that nobody knows whether it was done.
pub trait Backend {
    /// Hands over an attempt whose `spec.json` and `job.sh` are in place; it starts when all of `after` have ended well.
    fn submit(&self, ticket: &Ticket, after: &[Handle]) -> impl Future<Output = Result<Handed>>;

    /// Hands over attempts as tasks of one array, whose `job.sh` is in place beside their specs; the handle is the array's.
    fn submit_array(&self, tasks: &[Ticket], _after: &[Handle]) -> impl Future<Output = Result<Handed>> {
        let refusal = Error::bug(format!("{} tasks of an array where there are none", tasks.len()));
        async { Err(refusal) }
    }

    /// Most tasks that an array can have; there are no arrays where it is less than two.
    fn array_size(&self) -> impl Future<Output = Result<usize>> {
        async { Ok(0) }
    }

    /// Looks for an attempt that may have been handed over by a launcher that died before it could note so.
    fn find(&self, ticket: &Ticket) -> impl Future<Output = Result<Option<Handle>>>;

    /// Asks what became of attempts, all of them at once; answers in the order of the questions.
    fn poll(&self, asked: &[(Ticket, Handle)]) -> impl Future<Output = Result<Vec<Poll>>>;

    /// Asks an attempt to stop at a safe point.
    fn cancel(&self, ticket: &Ticket, handle: &Handle) -> impl Future<Output = Result<()>>;

    /// Ends an attempt at once.
    fn kill(&self, ticket: &Ticket, handle: &Handle) -> impl Future<Output = Result<()>>;
}
