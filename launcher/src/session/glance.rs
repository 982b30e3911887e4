//! A look at a run's jobs that changes nothing: neither journal nor cluster.

use qlaunch_shared::Result;
use qlaunch_shared::protocol::RunFolder;

use super::carry::Setup;
use super::drive::token;
use super::site::block_on;
use crate::backend::{Backend, Docker, Poll, Slurm, Ticket};
use crate::config::Kind;
use crate::engine::{Stage, State};
use crate::journal::{Handle, Line};
use crate::plan::PlannedRun;

/// What became of the jobs that the journal calls running, by name.
///
/// # Errors
/// A host or scheduler that does not answer.
pub fn glance(run: &PlannedRun, setup: &Setup, lines: &[Line], state: &State) -> Result<Vec<(String, Poll)>> {
    let mut names = Vec::new();
    let mut asked: Vec<(Ticket, Handle)> = Vec::new();
    for job in &state.jobs {
        if let Stage::Running { handle, .. } = &job.stage {
            names.push(job.name.clone());
            asked.push((ticket(run, lines, &job.name, job.attempt), handle.clone()));
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

/// An attempt of a run as its backend knows it.
pub fn ticket(run: &PlannedRun, lines: &[Line], job: &str, attempt: u32) -> Ticket {
    let folder = RunFolder(run.site.clone()).job(job).0;
    let birth = lines.first().map_or(0, |line| line.at);
    let token = token(&run.folder, birth, &folder, attempt);
    Ticket { folder, attempt, restart: 0, token }
}
