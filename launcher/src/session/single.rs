//! A run of one job in a folder of its own that is removed afterwards: what `quantize` and `eval` are.

use std::fs;
use std::path::{Path, PathBuf};

use qlaunch_shared::protocol::{Outcome, RunFolder};
use qlaunch_shared::{Error, ErrorKind, Result};

use super::carry::{Setup, carry_out, now};
use super::collect::outcome;
use super::listener::Listener;
use crate::engine::Stage;
use crate::plan::{PlannedJob, PlannedRun};

/// A job on its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Single {
    /// The job.
    pub job: PlannedJob,
    /// Folder below which the run's folder is made.
    pub scratch: PathBuf,
}

/// Carries out one job and returns how it ended. Its run folder stays only where its log explains a failure.
///
/// # Errors
/// Whatever ended the job, with the place of its log.
pub fn carry_out_single(single: Single, setup: &Setup, listener: &mut dyn Listener) -> Result<Outcome> {
    let name = single.job.name.clone();
    let folder = single.scratch.join(format!("qlaunch-{name}-{}-{}", std::process::id(), now()));
    let run = PlannedRun {
        name: name.clone(),
        folder: folder.clone(),
        site: folder.clone(),
        identity: String::new(),
        jobs: vec![single.job],
    };
    let carried = carry_out(&run, setup, listener)?;
    let job = carried.state.job(&name).ok_or_else(|| Error::bug("the run has lost its only job"))?;
    let log = RunFolder(folder.clone()).job(&name).attempt(job.attempt).log();
    match &job.stage {
        Stage::Accepted => {
            let outcome = outcome(&RunFolder(folder.clone()).job(&name), job.attempt)?;
            remove(&folder)?;
            Ok(outcome)
        }
        Stage::Failed { error } if error.kind == ErrorKind::Bug => Err(with_log(error.clone(), &log)),
        Stage::Failed { error } => {
            let error = error.clone();
            remove(&folder)?;
            Err(error)
        }
        _ => {
            remove(&folder)?;
            Err(Error::new(ErrorKind::Interrupted, "stopped before it was done")
                .hint("give the same command again to start over"))
        }
    }
}

/// An error that says nothing about what to do at least says where to read on.
fn with_log(error: Error, log: &Path) -> Error {
    match error.hint.is_some() || !log.exists() {
        true => error,
        false => error.hint(format!("read its log: `less {}`", log.display())),
    }
}

fn remove(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder).map_err(|error| Error::io("remove", folder, &error))
}
