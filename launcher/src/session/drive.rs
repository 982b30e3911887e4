//! The loop of a session: decide, act, look, wait.

use std::collections::HashMap;
use std::time::Duration;

use qlaunch_shared::protocol::{JobFolder, Reference};
use qlaunch_shared::{Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::carry::{Carried, Setup, now};
use super::listener::{Listener, Notice};
use crate::backend::{Backend, Poll, Ticket};
use crate::engine::{Stage, State, apply, decide, fold, is_over};
use crate::follow::Follower;
use crate::journal::{Entry, JobName, Journal, Line, VERSION};
use crate::plan::{PlannedJob, PlannedRun};
use crate::transport::Transport;

/// Time between two looks at running jobs.
const TICK: Duration = Duration::from_millis(100);

/// A session at work.
pub struct Drive<'a, B, T> {
    pub(super) run: &'a PlannedRun,
    pub(super) setup: &'a Setup,
    pub(super) backend: B,
    pub(super) transport: T,
    pub(super) listener: &'a mut dyn Listener,
    pub(super) state: State,
    journal: Journal,
    followers: HashMap<String, Follower>,
    grace: u64,
}

/// The signals that ask a session to stop.
struct Stops {
    interrupt: Signal,
    terminate: Signal,
}

impl Stops {
    fn listen() -> Result<Self> {
        let listen =
            |kind| signal(kind).map_err(|error| Error::bug(format!("cannot listen for signals: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl<'a, B: Backend, T: Transport> Drive<'a, B, T> {
    /// A session that goes on where the journal ends.
    pub fn new(
        run: &'a PlannedRun,
        setup: &'a Setup,
        (journal, lines): (Journal, &[Line]),
        (backend, transport): (B, T),
        listener: &'a mut dyn Listener,
    ) -> Self {
        let (state, grace) = (fold(lines), setup.policy.grace);
        Self { run, setup, backend, transport, listener, state, journal, followers: HashMap::new(), grace }
    }

    /// Takes the run over: finished jobs are kept if their results are still there, running ones are watched again.
    pub async fn open(&mut self) -> Result<()> {
        let name = |job: &PlannedJob| JobName { name: job.name.clone(), baseline: job.is_baseline() };
        let jobs = self.run.jobs.iter().map(name).collect();
        self.note(Entry::Opened {
            version: VERSION,
            launcher: env!("CARGO_PKG_VERSION").to_owned(),
            identity: self.run.identity.clone(),
            fresh: self.setup.fresh,
            jobs,
        })?;
        let run = self.run;
        for job in &run.jobs {
            let Some(known) = self.state.job(&job.name) else {
                continue;
            };
            let attempt = known.attempt;
            match &known.stage {
                Stage::Accepted if self.has_results(job, attempt).await? => {
                    self.listener.notice(&Notice::Kept { job: &job.name });
                }
                Stage::Accepted => {
                    self.note(Entry::NotSubmitted { job: job.name.clone(), attempt })?;
                    self.listener.notice(&Notice::Gone { job: &job.name });
                }
                Stage::Running { .. } => self.watch(&job.name, attempt, true),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether everything that an accepted attempt left is still in place.
    async fn has_results(&self, job: &PlannedJob, attempt: u32) -> Result<bool> {
        let folder = self.folder(&job.name);
        let mut needed = vec![folder.attempt(attempt).outcome()];
        if job.spec.quantize.as_ref().is_some_and(|quantize| quantize.out.is_none()) {
            needed.push(folder.checkpoint());
        }
        if job.spec.evaluate.as_ref().is_some_and(|evaluate| evaluate.reference == Reference::Keep) {
            needed.push(self.run_folder().reference());
        }
        for path in needed {
            if !self.transport.exists(&path).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Works until the run is over or stopped.
    pub async fn work(&mut self) -> Result<()> {
        let mut stops = Stops::listen()?;
        loop {
            self.act().await?;
            self.listener.tick();
            if is_over(&self.state) {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = stops.next() => self.stop()?,
            }
            self.look().await?;
        }
    }

    /// Does everything that is to be done now. Each action changes the state, so it is asked again until nothing is left.
    async fn act(&mut self) -> Result<()> {
        loop {
            let policy = crate::engine::Policy { grace: self.grace, ..self.setup.policy };
            let actions = decide(&self.state, now(), &policy);
            if actions.is_empty() {
                return Ok(());
            }
            for action in actions {
                self.perform(action).await?;
            }
        }
    }

    /// The first request stops gently, the second at once.
    fn stop(&mut self) -> Result<()> {
        if self.state.stopping {
            self.grace = 0;
            return Ok(());
        }
        self.listener.notice(&Notice::Stopping);
        self.note(Entry::Stopping)
    }

    /// Reads what running jobs say and asks what became of them.
    async fn look(&mut self) -> Result<()> {
        let running: Vec<(String, u32, crate::journal::Handle)> = self
            .state
            .jobs
            .iter()
            .filter_map(|job| match &job.stage {
                Stage::Running { handle, .. } => Some((job.name.clone(), job.attempt, handle.clone())),
                _ => None,
            })
            .collect();
        for (job, attempt, handle) in running {
            let ticket = self.ticket(&job, attempt);
            // Asked first, read second: what was said before the end is never missed.
            let poll = self.backend.poll(&ticket, &handle).await?;
            self.hear(&job).await?;
            if let Poll::Ended(ending) = poll {
                self.followers.remove(&job);
                self.listener.notice(&Notice::Ended { job: &job, ending: &ending });
                self.note(Entry::Ended { job, attempt, ending })?;
            }
        }
        Ok(())
    }

    async fn hear(&mut self, job: &str) -> Result<()> {
        if let Some(follower) = self.followers.get_mut(job) {
            for said in follower.read(&self.transport).await? {
                self.listener.notice(&Notice::Said { job, said: &said });
            }
        }
        Ok(())
    }

    /// Follows an attempt from its first event on.
    pub(super) fn watch(&mut self, job: &str, attempt: u32, again: bool) {
        let events = self.ticket(job, attempt).attempt().events();
        self.followers.insert(job.to_owned(), Follower::new(events));
        self.listener.notice(&match again {
            true => Notice::TakenOver { job, attempt },
            false => Notice::Started { job, attempt },
        });
    }

    /// Writes an entry and lets it change the state.
    pub(super) fn note(&mut self, entry: Entry) -> Result<()> {
        let line = self.journal.append(now(), entry)?;
        self.state = apply(std::mem::take(&mut self.state), &line);
        Ok(())
    }

    pub(super) fn run_folder(&self) -> qlaunch_shared::protocol::RunFolder {
        qlaunch_shared::protocol::RunFolder(self.run.folder.clone())
    }

    pub(super) fn folder(&self, job: &str) -> JobFolder {
        self.run_folder().job(job)
    }

    pub(super) fn ticket(&self, job: &str, attempt: u32) -> Ticket {
        Ticket { folder: self.folder(job).0, attempt }
    }

    /// Ends the session.
    pub fn into_carried(self) -> Carried {
        let undone = |job: &crate::engine::Job| matches!(job.stage, Stage::Waiting | Stage::Stopped { .. });
        let interrupted = self.state.stopping && self.state.jobs.iter().any(undone);
        Carried { state: self.state, journal: self.journal, interrupted }
    }
}
