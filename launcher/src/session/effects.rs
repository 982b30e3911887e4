//! What a session does to the world, each deed with its intent in the journal before and its effect after.

use std::path::Path;

use qlaunch_shared::protocol::Reference;
use qlaunch_shared::{Error, Result};

use super::drive::Drive;
use super::listener::Notice;
use crate::backend::Backend;
use crate::engine::{Action, Stage};
use crate::journal::{Ending, Entry};
use crate::plan::{PlannedJob, Script, render};
use crate::transport::Transport;

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
        self.note(Entry::Submitting { job: name.to_owned(), attempt })?;
        match self.hand_over(name, attempt).await {
            Ok(handle) => {
                self.note(Entry::Submitted { job: name.to_owned(), attempt, handle })?;
                self.watch(name, attempt, false);
                Ok(())
            }
            Err(error) => {
                let ending = Ending::Failed { error };
                self.listener.notice(&Notice::Ended { job: name, ending: &ending });
                self.note(Entry::Ended { job: name.to_owned(), attempt, ending })
            }
        }
    }

    async fn hand_over(&self, name: &str, attempt: u32) -> Result<crate::journal::Handle> {
        let job = self.planned(name)?;
        let folder = self.folder(name);
        let spec = serde_json::to_vec_pretty(&job.spec)
            .map_err(|error| Error::bug(format!("cannot spell the spec of `{name}`: {error}")))?;
        let script = render(&Script {
            template: &self.setup.template,
            origin: &self.setup.template_origin,
            run: &self.run.name,
            candidate: name,
            cluster: &self.setup.cluster,
            folder: &folder.0,
            worker: &self.setup.worker,
        })?;
        self.transport.write(&folder.spec(), &spec).await?;
        self.transport.write(&folder.script(), script.as_bytes()).await?;
        self.backend.submit(&self.ticket(name, attempt)).await
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
            return self.note(Entry::Ended { job: name.to_owned(), attempt, ending });
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
            Err(error) => self.give_up(name, error),
        }
    }

    async fn move_up(&self, name: &str, attempt: u32) -> Result<()> {
        let spec = &self.planned(name)?.spec;
        let folder = self.folder(name);
        let from = folder.attempt(attempt);
        if spec.quantize.as_ref().is_some_and(|quantize| quantize.out.is_none()) {
            self.replace(&from.checkpoint(), &folder.checkpoint()).await?;
        }
        if spec.evaluate.as_ref().is_some_and(|evaluate| evaluate.reference == Reference::Keep) {
            self.replace(&from.reference(), &self.run_folder().reference()).await?;
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

    fn give_up(&mut self, name: &str, error: Error) -> Result<()> {
        self.listener.notice(&Notice::GivenUp { job: name, error: &error });
        self.note(Entry::GivenUp { job: name.to_owned(), error })
    }

    async fn cancel(&mut self, name: &str, kill: bool) -> Result<()> {
        let Some(Stage::Running { handle, .. }) = self.state.job(name).map(|job| job.stage.clone()) else {
            return Ok(());
        };
        self.note(Entry::Cancelling { job: name.to_owned(), kill })?;
        match kill {
            true => self.backend.kill(&handle).await,
            false => self.backend.cancel(&handle).await,
        }
    }
}
