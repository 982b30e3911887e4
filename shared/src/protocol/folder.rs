//! Where things lie in a run folder, the same on every backend.
//!
//! ```text
//! runs/RUN/ sweep.yaml plan.json run.json journal.jsonl portfolio.json reference.safetensors
//!           CANDIDATE/ spec.json job.sh checkpoint/ attempts/N/
//! attempts/N/ = log events.jsonl outcome.json checkpoint/ reference.safetensors
//! ```
//! Jobs that a scheduler takes as one array also have `runs/RUN/arrays/NAME/`, with its `job.sh` and links to their logs.
//!
//! On another host the run has a second folder, its site, with `owner` (who drives it), `reference.safetensors` and the
//! jobs; a scheduler that starts attempt N again by itself gives it `attempts/N.1`, `attempts/N.2` and so on.
//!
//! A worker writes only below `attempts/N/`. The launcher reads the newest attempt only and moves its checkpoint (and
//! the reference) up when it accepts the outcome, so late writes of a dead node's worker are harmless.

use std::path::{Path, PathBuf};

/// `runs/RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder(pub PathBuf);

impl RunFolder {
    /// The sweep file as it was submitted.
    pub fn sweep(&self) -> PathBuf {
        self.0.join("sweep.yaml")
    }

    /// What was planned.
    pub fn plan(&self) -> PathBuf {
        self.0.join("plan.json")
    }

    /// What the launcher meant to do and what became of it.
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal.jsonl")
    }

    /// The table of candidates and verdicts.
    pub fn portfolio(&self) -> PathBuf {
        self.0.join("portfolio.json")
    }

    /// Final hidden states of the unquantized model, for KL divergences.
    pub fn reference(&self) -> PathBuf {
        self.0.join("reference.safetensors")
    }

    /// The folder of an array of jobs, with its script, the scheduler's answer, and a link to the log of each task.
    pub fn array(&self, name: &str) -> JobFolder {
        JobFolder(self.0.join("arrays").join(name))
    }

    /// The folder of one candidate's job.
    pub fn job(&self, candidate: &str) -> JobFolder {
        JobFolder(self.0.join(candidate))
    }
}

/// `runs/RUN/CANDIDATE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFolder(pub PathBuf);

impl JobFolder {
    /// What to do.
    pub fn spec(&self) -> PathBuf {
        self.0.join("spec.json")
    }

    /// The rendered job script.
    pub fn script(&self) -> PathBuf {
        self.0.join("job.sh")
    }

    /// The accepted checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.0.join("checkpoint")
    }

    /// One attempt, counted from 1.
    pub fn attempt(&self, number: u32) -> AttemptFolder {
        AttemptFolder(self.0.join("attempts").join(number.to_string()))
    }
}

/// `runs/RUN/CANDIDATE/attempts/N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptFolder(pub PathBuf);

impl AttemptFolder {
    /// Standard output and error of the job.
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// What the worker says while it works.
    pub fn events(&self) -> PathBuf {
        self.0.join("events.jsonl")
    }

    /// How it ended.
    pub fn outcome(&self) -> PathBuf {
        self.0.join("outcome.json")
    }

    /// The checkpoint before it is accepted.
    pub fn checkpoint(&self) -> PathBuf {
        self.0.join("checkpoint")
    }

    /// The folder of another rank than the first: its own events and outcome.
    pub fn rank(&self, rank: usize) -> Self {
        Self(self.0.join("ranks").join(rank.to_string()))
    }

    /// What only the ranks of this attempt know, where the launcher starts them on one host.
    pub fn token(&self) -> PathBuf {
        self.0.join("token")
    }

    /// Final hidden states before they are accepted as the run's reference.
    pub fn reference(&self) -> PathBuf {
        self.0.join("reference.safetensors")
    }
}

impl AsRef<Path> for AttemptFolder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}
