//! A look at a run's jobs that changes nothing: neither journal nor cluster.

use std::path::Path;

use qlaunch_shared::Result;
use qlaunch_shared::protocol::RunFolder;

use super::carry::Setup;
use super::site::block_on;
use crate::backend::{ArrayTicket, Backend, Docker, Poll, Slurm, Ticket};
use crate::config::Kind;
use crate::engine::{Stage, State};
use crate::journal::{ArrayTask, Handle, Line};
use crate::plan::PlannedRun;

/// What became of the jobs that the journal calls running, by name.
///
/// # Errors
/// A host or scheduler that does not answer.
pub fn glance(run: &PlannedRun, setup: &Setup, lines: &[Line], state: &State) -> Result<Vec<(String, Poll)>> {
    let birth = lines.first().map_or(0, |line| line.at);
    let mut names = Vec::new();
    let mut asked: Vec<(Ticket, Handle)> = Vec::new();
    for job in &state.jobs {
        if let Stage::Running { handle, .. } = &job.stage {
            names.push(job.name.clone());
            let ticket = ticket((run, birth), &job.name, job.attempt, job.array.as_ref());
            asked.push((ticket, handle.clone()));
        }
    }
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let host = setup.site.host.clone();
    let polls = block_on(async {
        match setup.kind {
            Kind::Slurm => Slurm::over(host, &setup.cluster, setup.lag).poll(&asked).await,
            Kind::Docker => {
                let settings = setup.extras.docker.clone();
                Docker::over(host, &setup.cluster, settings).poll(&asked).await
            }
            Kind::Local | Kind::Ssh => setup.processes().poll(&asked).await,
        }
    })?;
    Ok(names.into_iter().zip(polls).collect())
}

/// An attempt of a run with its birth, as its backend knows it.
pub(super) fn ticket(
    (run, birth): (&PlannedRun, u64),
    job: &str,
    attempt: u32,
    array: Option<&ArrayTask>,
) -> Ticket {
    let site = RunFolder(run.site.clone());
    let folder = site.job(job).0;
    let array = array.map(|task| {
        let folder = site.array(&task.array).0;
        let token = token(&run.folder, birth, &folder, "array");
        ArrayTicket { folder, token, index: task.index }
    });
    let token = token(&run.folder, birth, &folder, &attempt.to_string());
    Ticket { folder, attempt, restart: 0, token, array }
}

/// What an attempt or array is recognised by: the run's folder here, its birth, the folder there, and what of it.
fn token(run: &Path, birth: u64, folder: &Path, which: &str) -> String {
    let whole = format!("{}\n{birth}\n{}\n{which}", super::claim::owner(run), folder.display());
    let hash = &qlaunch_shared::digest::sha256(whole)[..12];
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    format!("ql-{hash}-{name}-{which}")
}
