//! How a session begins: it takes the run over where the journal ends.

use std::collections::HashSet;
use std::path::PathBuf;

use qlaunch_shared::protocol::{JobSpec, Reference};
use qlaunch_shared::{ErrorKind, Result};

use super::carry::Opening;
use super::drive::Drive;
use super::listener::Notice;
use crate::backend::Backend;
use crate::engine::Stage;
use crate::journal::{Entry, JobName, VERSION};
use crate::plan::PlannedJob;
use crate::transport::{Transport, Wanted};

/// Most that is read of a spec.
const LIMIT: u64 = 64 << 20;
/// Jobs whose results are looked for in one call: a command line has room for so many paths.
const AT_ONCE: usize = 200;

impl<B: Backend, T: Transport> Drive<'_, B, T> {
    /// Takes the run over: finished jobs are kept if their results are still there, running ones are watched again.
    pub async fn open(&mut self) -> Result<()> {
        self.claim().await?;
        self.note(self.opening())?;
        let (run, setup) = (self.run, self.setup);
        for job in &setup.again {
            let attempt = self.state.job(job).map_or(0, |job| job.attempt);
            self.note(Entry::NotSubmitted { job: job.clone(), attempt })?;
        }
        let whole = self.whole().await?;
        for job in &run.jobs {
            let Some(known) = self.state.job(&job.name) else {
                continue;
            };
            let attempt = known.attempt;
            match &known.stage {
                Stage::Accepted if whole.contains(&job.name) => {
                    self.listener.notice(&Notice::Kept { job: &job.name });
                }
                Stage::Accepted => {
                    self.note(Entry::NotSubmitted { job: job.name.clone(), attempt })?;
                    self.listener.notice(&Notice::Gone { job: &job.name });
                }
                Stage::Failed { error } if error.kind == ErrorKind::Gate => {
                    let attached = matches!(self.setup.opening, Opening::Attach | Opening::Cancel);
                    if !attached && !self.is_told_the_same(job).await? {
                        self.note(Entry::NotSubmitted { job: job.name.clone(), attempt })?;
                    }
                }
                Stage::Running { .. } => self.watch(&job.name, attempt, true),
                _ => {}
            }
        }
        let waiting = self.state.jobs.iter().filter(|job| !job.baseline && job.stage == Stage::Waiting);
        if waiting.count() > 1 && setup.array_size > 1 && setup.opening != Opening::Cancel {
            self.array = self.backend.array_size().await?.min(setup.array_size);
        }
        Ok(())
    }

    fn opening(&self) -> Entry {
        // A run that never began has nothing to attach to.
        let begun = !self.state.jobs.is_empty();
        if matches!(self.setup.opening, Opening::Attach | Opening::Cancel) && begun {
            return Entry::Attached;
        }
        let name = |job: &PlannedJob| JobName { name: job.name.clone(), baseline: job.is_baseline() };
        Entry::Opened {
            version: VERSION,
            launcher: env!("CARGO_PKG_VERSION").to_owned(),
            identity: self.run.identity.clone(),
            fresh: self.setup.opening == Opening::Fresh,
            jobs: self.run.jobs.iter().map(name).collect(),
        }
    }

    /// Whether a job that a gate ended was measured under the rules that hold now. What was asked of its attempt is still there.
    async fn is_told_the_same(&self, job: &PlannedJob) -> Result<bool> {
        let path = self.folder(&job.name).spec();
        let Some(bytes) = self.transport.read(&path, 0, LIMIT).await? else { return Ok(false) };
        let ceilings = |spec: &JobSpec| spec.evaluate.as_ref().map(|evaluate| evaluate.ceilings.clone());
        Ok(serde_json::from_slice(&bytes).is_ok_and(|told| ceilings(&told) == ceilings(&job.spec)))
    }

    /// Names of the accepted jobs whose results are all still in place, asked for in a few calls, however many there are.
    async fn whole(&self) -> Result<HashSet<String>> {
        let is_accepted =
            |job: &&PlannedJob| self.state.job(&job.name).is_some_and(|known| known.stage == Stage::Accepted);
        let accepted: Vec<&PlannedJob> = self.run.jobs.iter().filter(is_accepted).collect();
        let mut whole: HashSet<String> = accepted.iter().map(|job| job.name.clone()).collect();
        for some in accepted.chunks(AT_ONCE) {
            let needed: Vec<(&PlannedJob, PathBuf)> = some
                .iter()
                .flat_map(|job| self.results(job).into_iter().map(move |path| (*job, path)))
                .collect();
            let wanted: Vec<Wanted> =
                needed.iter().map(|(_, path)| Wanted { path: path.clone(), from: 0, limit: 0 }).collect();
            for ((job, _), found) in needed.iter().zip(self.transport.read_many(&wanted).await?) {
                if found.is_none() {
                    whole.remove(&job.name);
                }
            }
        }
        Ok(whole)
    }

    /// Files that an accepted attempt left; of a checkpoint the one that is written last.
    fn results(&self, job: &PlannedJob) -> Vec<PathBuf> {
        let folder = self.folder(&job.name);
        let attempt = self.state.job(&job.name).map_or(0, |known| known.attempt);
        let mut needed = vec![self.ticket(&job.name, attempt).attempt().outcome()];
        if job.spec.quantize.as_ref().is_some_and(|quantize| quantize.out.is_none()) {
            needed.push(folder.checkpoint().join("config.json"));
        }
        if job.spec.evaluate.as_ref().is_some_and(|evaluate| evaluate.reference == Reference::Keep) {
            needed.push(self.run_folder().reference());
        }
        needed
    }
}
