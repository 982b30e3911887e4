//! What a session does to the world, each deed with its intent in the journal before and its effect after.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qlaunch_shared::protocol::Reference;
use qlaunch_shared::{Error, ErrorKind, Result};

use super::carry::Setup;
use super::drive::Drive;
use super::listener::Notice;
use crate::backend::{Backend, Handed};
use crate::engine::{Action, Stage};
use crate::journal::{Ending, Entry, Handle};
use crate::plan::{PlannedJob, PlannedRun, Script, render};
use crate::transport::Transport;

/// Shortest time between two tries while a limit on jobs is reached and none of ours ends.
const HELD: Duration = Duration::from_secs(15);

impl<B: Backend, T: Transport> Drive<'_, B, T> {
    /// Carries out one action. A job's own faults are noted as its end; only faults of the run are returned.
    pub(super) async fn perform(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Submit { job, attempt } => self.submit(&job, attempt).await,
            Action::Find { job, attempt } => self.find(&job, attempt).await,
            Action::Accept { job, attempt } => self.accept(&job, attempt).await,
            Action::GiveUp { job, error } => self.give_up(&job, error),
            Action::Cancel { job, kill } => self.cancel(&job, kill).await,
        }
    }

    async fn submit(&mut self, name: &str, attempt: u32) -> Result<()> {
        // Another job has just been told to come later.
        if self.is_held() {
            return Ok(());
        }
        self.note(Entry::Submitting { job: name.to_owned(), attempt })?;
        match self.hand_over(name, attempt).await {
            Ok(Handed::Taken(handle)) => {
                self.note(Entry::Submitted { job: name.to_owned(), attempt, handle })?;
                self.watch(name, attempt, false);
                Ok(())
            }
            Ok(Handed::Later(why)) => {
                self.held_until = Some(Instant::now() + self.setup.pace.most.max(HELD));
                self.listener.notice(&Notice::Held { why: &why });
                self.note(Entry::NotSubmitted { job: name.to_owned(), attempt })
            }
            // Nobody knows whether it was taken: it is looked for before anything else is done with it.
            Err(error) if error.kind == ErrorKind::Unreachable && self.setup.detaches() => Err(error),
            Err(error) => {
                let ending = Ending::Failed { error };
                self.listener.notice(&Notice::Ended { job: name, ending: &ending });
                self.note(Entry::Ended { job: name.to_owned(), attempt, restart: 0, ending })
            }
        }
    }

    async fn hand_over(&self, name: &str, attempt: u32) -> Result<Handed> {
        let job = self.planned(name)?;
        let folder = self.folder(name);
        let spec = serde_json::to_vec_pretty(&job.spec)
            .map_err(|error| Error::bug(format!("cannot spell the spec of `{name}`: {error}")))?;
        let script = render(&script_of(job, self.run, self.setup, &folder.0))?;
        self.transport.write(&folder.spec(), &spec).await?;
        self.transport.write(&folder.script(), script.as_bytes()).await?;
        let baselines = self.state.jobs.iter().filter(|other| other.baseline && !job.is_baseline());
        let after: Vec<Handle> = baselines
            .filter_map(|other| match &other.stage {
                Stage::Running { handle, .. } => Some(handle.clone()),
                _ => None,
            })
            .collect();
        self.backend.submit(&self.ticket(name, attempt), &after).await
    }

    fn planned(&self, name: &str) -> Result<&PlannedJob> {
        let job = self.run.jobs.iter().find(|job| job.name == name);
        job.ok_or_else(|| Error::bug(format!("the run has no job `{name}`")))
    }

    /// A launcher died between intent and effect: the job runs, has run, or was never handed over.
    async fn find(&mut self, name: &str, attempt: u32) -> Result<()> {
        let ticket = self.ticket(name, attempt);
        if let Some(handle) = self.backend.find(&ticket).await? {
            self.note(Entry::Submitted { job: name.to_owned(), attempt, handle })?;
            self.watch(name, attempt, true);
            return Ok(());
        }
        if self.transport.exists(&ticket.attempt().outcome()).await? {
            let ending = crate::backend::ending(&self.transport, &ticket).await?;
            self.bring_home(&ticket).await?;
            return self.note(Entry::Ended { job: name.to_owned(), attempt, restart: 0, ending });
        }
        self.note(Entry::NotSubmitted { job: name.to_owned(), attempt })
    }

    /// Moves an attempt's results up. Can be done again after a crash at any point.
    async fn accept(&mut self, name: &str, attempt: u32) -> Result<()> {
        self.note(Entry::Accepting { job: name.to_owned(), attempt })?;
        match self.move_up(name, attempt).await {
            Ok(()) => {
                self.note(Entry::Accepted { job: name.to_owned(), attempt })?;
                self.listener.notice(&Notice::Accepted { job: name });
                Ok(())
            }
            Err(error) if error.kind == ErrorKind::Unreachable => Err(error),
            Err(error) => self.give_up(name, error),
        }
    }

    async fn move_up(&self, name: &str, attempt: u32) -> Result<()> {
        let spec = &self.planned(name)?.spec;
        let folder = self.folder(name);
        let from = self.ticket(name, attempt).attempt();
        if spec.quantize.as_ref().is_some_and(|quantize| quantize.out.is_none()) {
            self.replace(&from.checkpoint(), &folder.checkpoint()).await?;
        }
        if spec.evaluate.as_ref().is_some_and(|evaluate| evaluate.reference == Reference::Keep) {
            self.publish(&from.reference(), &self.run_folder().reference()).await?;
        }
        Ok(())
    }

    /// Puts a file or folder in the place of an older one, which is removed only when the new one is there.
    async fn replace(&self, new: &Path, place: &Path) -> Result<()> {
        let mut old = new.as_os_str().to_owned();
        old.push(".superseded");
        let old = Path::new(&old);
        match (self.transport.exists(new).await?, self.transport.exists(place).await?) {
            (true, there) => {
                if there {
                    self.transport.remove(old).await?;
                    self.transport.rename(place, old).await?;
                }
                self.transport.rename(new, place).await?;
            }
            (false, true) => {}
            (false, false) => {
                return Err(Error::bug("the worker was done, but left nothing here").at(new));
            }
        }
        self.transport.remove(old).await
    }

    /// Puts a file in the place of an older one at one stroke: jobs that wait for it may be opening it.
    async fn publish(&self, new: &Path, place: &Path) -> Result<()> {
        match (self.transport.exists(new).await?, self.transport.exists(place).await?) {
            (true, _) => self.transport.rename(new, place).await,
            (false, true) => Ok(()),
            (false, false) => Err(Error::bug("the worker was done, but left nothing here").at(new)),
        }
    }

    fn give_up(&mut self, name: &str, error: Error) -> Result<()> {
        self.listener.notice(&Notice::GivenUp { job: name, error: &error });
        self.note(Entry::GivenUp { job: name.to_owned(), error })
    }

    async fn cancel(&mut self, name: &str, kill: bool) -> Result<()> {
        let known = self.state.job(name).map(|job| (job.stage.clone(), job.attempt));
        let Some((Stage::Running { handle, .. }, attempt)) = known else {
            return Ok(());
        };
        let ticket = self.ticket(name, attempt);
        self.note(Entry::Cancelling { job: name.to_owned(), kill })?;
        match kill {
            true => self.backend.kill(&ticket, &handle).await,
            false => self.backend.cancel(&ticket, &handle).await,
        }
    }
}

/// What a job's script is rendered from, in a submission and in a dry run alike.
pub fn script_of<'a>(
    job: &'a PlannedJob,
    run: &'a PlannedRun,
    setup: &'a Setup,
    folder: &'a Path,
) -> Script<'a> {
    let evaluate = job.spec.evaluate.as_ref();
    let needs = evaluate.and_then(|evaluate| match &evaluate.reference {
        Reference::Kept(path) => Some(path.as_path()),
        _ => None,
    });
    Script {
        template: &setup.template,
        origin: &setup.template_origin,
        run: &run.name,
        candidate: &job.name,
        cluster: &setup.cluster,
        folder,
        worker: &setup.worker,
        extras: &setup.extras,
        needs,
        leaves: evaluate.is_some_and(|evaluate| evaluate.reference == Reference::Keep).then_some(&*run.site),
        reads: reads_of(job),
        writes: writes_of(job, run, setup, folder),
    }
}

/// Folders that a job's worker writes. Store and attempts are one folder wherever one holds both, because hard links do not
/// go from one mounted folder to another.
fn writes_of(job: &PlannedJob, run: &PlannedRun, setup: &Setup, folder: &Path) -> Vec<PathBuf> {
    let above = setup.site.workspace.as_deref().or_else(|| run.site.parent());
    match (&job.spec.store, above) {
        (Some(store), Some(above)) if store.starts_with(above) => vec![above.to_owned()],
        (store, _) => std::iter::once(folder.to_owned()).chain(store.clone()).collect(),
    }
}

/// Files and folders that a job's worker reads, each once.
fn reads_of(job: &PlannedJob) -> Vec<&Path> {
    let mut reads = vec![job.spec.model.as_path()];
    // A baseline calibrates for the candidates behind it.
    let made = job.spec.quantize.iter().chain(&job.spec.calibrate);
    reads.extend(made.filter_map(|quantize| Some(quantize.calibration.as_ref()?.data.as_path())));
    if let Some(evaluate) = &job.spec.evaluate {
        reads.push(&evaluate.tokens.data);
        reads.extend(evaluate.checkpoint.as_deref());
        match &evaluate.reference {
            Reference::Kept(path) | Reference::Model(path) => reads.push(path),
            Reference::None | Reference::Keep => {}
        }
    }
    let mut reads: Vec<&Path> = reads.into_iter().map(with_contents).collect();
    reads.sort();
    reads.dedup();
    reads
}

/// What has to be seen for a path to be read: of a snapshot in a cache of the Hub the whole repository, whose contents its
/// files are links to.
fn with_contents(path: &Path) -> &Path {
    let is_repository = |folder: &&Path| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let kind = name.starts_with("models--") || name.starts_with("datasets--");
        kind && path.starts_with(folder.join("snapshots"))
    };
    path.ancestors().find(is_repository).unwrap_or(path)
}
