//! What a session does to the world, each deed with its intent in the journal before and its effect after.

use std::path::Path;
use std::time::Duration;

use qlaunch_shared::protocol::Reference;
use qlaunch_shared::{Error, ErrorKind, Result};
use tokio::time::Instant;

use super::drive::Drive;
use super::listener::Notice;
use super::scripts::{array_name, array_script_of, script_of};
use crate::backend::{Backend, Handed, Ticket};
use crate::engine::{Action, Job, Stage};
use crate::journal::{ArrayTask, Ending, Entry, Handle};
use crate::plan::PlannedJob;
use crate::transport::Transport;

/// Shortest time between two tries while a limit on jobs is reached and none of ours ends.
const HELD: Duration = Duration::from_secs(15);

impl<B: Backend, T: Transport> Drive<'_, B, T> {
    /// Carries out one action. A job's own faults are noted as its end; only faults of the run are returned.
    pub(super) async fn perform(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Submit { job, attempt } => self.submit(&job, attempt).await,
            Action::SubmitArray { tasks } => self.submit_array(&tasks).await,
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
        self.note(Entry::Submitting { job: name.to_owned(), attempt, array: None })?;
        let handed = self.hand_over(name, attempt).await;
        self.handed(&[(name.to_owned(), attempt)], handed, |handle, _| handle.clone())
    }

    /// Hands over jobs that are alike as one array. Its folder is named after the first of them: an attempt is handed over once.
    async fn submit_array(&mut self, tasks: &[(String, u32)]) -> Result<()> {
        let Some((first, attempt)) = tasks.first().filter(|_| !self.is_held()) else { return Ok(()) };
        let array = array_name(first, *attempt);
        for (index, (job, attempt)) in (0..).zip(tasks) {
            let task = Some(ArrayTask { array: array.clone(), index });
            self.note(Entry::Submitting { job: job.clone(), attempt: *attempt, array: task })?;
        }
        let handed = self.hand_over_array(&array, tasks).await;
        if matches!(handed, Ok(Handed::Later(_))) {
            // There may be room for some of them.
            self.array = tasks.len() / 2;
            return self.not_submitted(tasks);
        }
        self.handed(tasks, handed, Handle::task)
    }

    /// Notes what was said to jobs that were handed over together; `handle` is what one of them is called.
    fn handed(
        &mut self,
        tasks: &[(String, u32)],
        handed: Result<Handed>,
        handle: impl Fn(&Handle, u32) -> Handle,
    ) -> Result<()> {
        match handed {
            Ok(Handed::Taken(taken)) => {
                for (index, (job, attempt)) in (0..).zip(tasks) {
                    let handle = handle(&taken, index);
                    self.note(Entry::Submitted { job: job.clone(), attempt: *attempt, handle })?;
                    self.watch(job, *attempt, false);
                }
                Ok(())
            }
            Ok(Handed::Later(why)) => {
                self.held_until = Some(Instant::now() + self.setup.pace.most.max(HELD));
                self.listener.notice(&Notice::Held { why: &why });
                self.not_submitted(tasks)
            }
            // Nobody knows whether they were taken: they are looked for before anything else is done with them.
            Err(error) if error.kind == ErrorKind::Unreachable && self.setup.detaches() => Err(error),
            Err(error) => tasks.iter().try_for_each(|(job, attempt)| {
                let ending = Ending::Failed { error: error.clone() };
                self.listener.notice(&Notice::Ended { job, ending: &ending });
                self.note(Entry::Ended { job: job.clone(), attempt: *attempt, restart: 0, ending })
            }),
        }
    }

    fn not_submitted(&mut self, tasks: &[(String, u32)]) -> Result<()> {
        tasks.iter().try_for_each(|(job, attempt)| {
            self.note(Entry::NotSubmitted { job: job.clone(), attempt: *attempt })
        })
    }

    async fn hand_over(&self, name: &str, attempt: u32) -> Result<Handed> {
        let job = self.planned(name)?;
        let folder = self.folder(name);
        let script = script_of(job, self.run, self.setup, &folder.0);
        let script = self.setup.job_template()?.render(&script)?;
        self.transport.write(&folder.spec(), &spelled(job)?).await?;
        self.transport.write(&folder.script(), script.as_bytes()).await?;
        let after = if job.is_baseline() { Vec::new() } else { self.running_baselines() };
        self.backend.submit(&self.ticket(name, attempt), &after).await
    }

    async fn hand_over_array(&self, array: &str, tasks: &[(String, u32)]) -> Result<Handed> {
        let jobs: Vec<(&PlannedJob, u32)> =
            tasks.iter().map(|(name, attempt)| Ok((self.planned(name)?, *attempt))).collect::<Result<_>>()?;
        for (job, _) in &jobs {
            self.transport.write(&self.folder(&job.name).spec(), &spelled(job)?).await?;
        }
        let folder = self.run_folder().array(array);
        let script = array_script_of(&jobs, self.run, self.setup, &folder.0);
        let script = self.setup.job_template()?.render(&script)?;
        self.transport.write(&folder.script(), script.as_bytes()).await?;
        let tickets: Vec<Ticket> = tasks.iter().map(|(name, attempt)| self.ticket(name, *attempt)).collect();
        self.backend.submit_array(&tickets, &self.running_baselines()).await
    }

    fn running_baselines(&self) -> Vec<Handle> {
        let handle = |job: &Job| match &job.stage {
            Stage::Running { handle, .. } if job.baseline => Some(handle.clone()),
            _ => None,
        };
        self.state.jobs.iter().filter_map(handle).collect()
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

/// What the worker is told, as it is written.
fn spelled(job: &PlannedJob) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(&job.spec)
        .map_err(|error| Error::bug(format!("cannot spell the spec of `{}`: {error}", job.name)))
}
