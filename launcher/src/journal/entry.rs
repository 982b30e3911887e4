//! The lines of a journal.

use qlaunch_shared::Error;
use serde::{Deserialize, Serialize};

/// Version of the journal's entries. Since 2, jobs may be handed over as tasks of one array: a launcher that does not know
/// that would look for them under other names, and hand them over again.
pub const VERSION: u32 = 2;

/// One line: when, and what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since the Unix epoch on the launcher's clock.
    pub at: u64,
    /// What was meant or what happened.
    pub entry: Entry,
}

/// What was meant (`…ing`) or what happened. Job names are unique in a run; attempts count from 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Entry {
    /// A launcher takes the run over: what failed before is tried again.
    Opened {
        /// [`VERSION`] of the launcher that writes.
        version: u32,
        /// The launcher's own version.
        launcher: String,
        /// Hash of everything that the run's results depend on.
        #[serde(default)]
        identity: String,
        /// Whether finished jobs are to be run again.
        fresh: bool,
        /// The jobs of the run: baselines first, then candidates in the sweep's order.
        jobs: Vec<JobName>,
    },
    /// A job is about to be handed to the backend.
    Submitting {
        /// Its name.
        job: String,
        /// Which try.
        attempt: u32,
        /// The array that it is a task of, where it is handed over with others.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        array: Option<ArrayTask>,
    },
    /// The backend has taken it.
    Submitted {
        /// Its name.
        job: String,
        /// Which try.
        attempt: u32,
        /// What the backend calls it.
        handle: Handle,
    },
    /// The backend has no trace of it, so that it can be submitted again.
    NotSubmitted {
        /// Its name.
        job: String,
        /// Which try.
        attempt: u32,
    },
    /// An attempt is over.
    Ended {
        /// Its name.
        job: String,
        /// Which try.
        attempt: u32,
        /// How often the scheduler started it again by itself.
        #[serde(default, skip_serializing_if = "is_zero")]
        restart: u32,
        /// How.
        ending: Ending,
    },
    /// Its results are about to be moved up from the attempt's folder.
    Accepting {
        /// Its name.
        job: String,
        /// Which try.
        attempt: u32,
    },
    /// Its results are in place.
    Accepted {
        /// Its name.
        job: String,
        /// Which try.
        attempt: u32,
    },
    /// It will not be tried again in this session.
    GivenUp {
        /// Its name.
        job: String,
        /// Why.
        error: Error,
    },
    /// Another launcher goes on watching: unlike [`Entry::Opened`] nothing that failed is tried again.
    Attached,
    /// Somebody does not want a job any more.
    Unwanted {
        /// Its name.
        job: String,
    },
    /// Somebody asked to stop: no job starts any more.
    Stopping,
    /// A running attempt is about to be asked to stop.
    Cancelling {
        /// Its name.
        job: String,
        /// Whether it is ended at once rather than asked.
        kill: bool,
    },
    /// The portfolio was written.
    Judged {
        /// The candidate to take.
        recommended: Option<String>,
    },
}

impl Handle {
    /// What a task of an array is called, where this is the array.
    #[must_use]
    pub fn task(&self, index: u32) -> Self {
        match self {
            Self::Slurm { id, name } => Self::Slurm { id: format!("{id}_{index}"), name: name.clone() },
            other => other.clone(),
        }
    }
}

/// A task of an array: attempts of several jobs that are handed over by one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrayTask {
    /// Name of the array's folder, which no other array of the run has.
    pub array: String,
    /// Which of its tasks, from 0.
    pub index: u32,
}

/// A job as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobName {
    /// Its name.
    pub name: String,
    /// Whether candidates wait for it.
    pub baseline: bool,
}

/// A process of some host. Process ids are used again; these facts together are not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id, which is also the id of its process group.
    pub pid: u32,
    /// Clock ticks from boot to its start (field 22 of `/proc/PID/stat`); 0 if it was over before anybody could look.
    pub started: u64,
    /// Id of the boot.
    pub boot: String,
    /// Name of its host, where the cluster has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl Handle {
    /// The processes of a job; none if it is something else.
    pub fn processes(&self) -> &[Process] {
        match self {
            Self::Process(process) => std::slice::from_ref(process),
            Self::Processes(processes) => processes,
            Self::Slurm { .. } | Self::Container { .. } => &[],
        }
    }
}

/// What a backend calls a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Handle {
    /// A process that leads a session of its own.
    Process(Process),
    /// One on each host of a job.
    Processes(Vec<Process>),
    /// A job of SLURM. A controller that crashes gives job ids away twice, so the name decides.
    Slurm {
        /// Job id; of a task of an array `ID_INDEX`.
        id: String,
        /// Job name: the token of the attempt, or of the array that it is a task of.
        name: String,
    },
    /// A container of Docker or podman.
    Container {
        /// Its id.
        id: String,
        /// Its name and label: the attempt's token.
        name: String,
    },
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "was", rename_all = "snake_case")]
pub enum Ending {
    /// All steps were taken.
    Done,
    /// The worker, or the script around it, said why not. Trying again would end the same way.
    Failed {
        /// Why.
        error: Error,
    },
    /// It stopped at a safe point and can be started again.
    Interrupted,
    /// It is gone without a word: killed, out of memory, or its machine went down.
    Lost {
        /// What is known.
        error: Error,
        /// What sort of loss it is.
        #[serde(default, skip_serializing_if = "Loss::is_infrastructure")]
        class: Loss,
    },
    /// The scheduler dropped it before it began, or what it needs was not there: it is no try at all.
    Unstarted {
        /// Why.
        error: Error,
    },
}

/// What sort of loss it is: each has its own number of further tries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// A process or node that died.
    #[default]
    Infrastructure,
    /// A more important job took its place.
    Preempted,
    /// Its time was over.
    Timeout,
}

impl Loss {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_infrastructure(&self) -> bool {
        *self == Self::Infrastructure
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}
