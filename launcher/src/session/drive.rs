//! The loop of a session: decide, act, look, wait.

use std::collections::HashMap;
use std::time::Duration;

use qlaunch_shared::protocol::{JobFolder, RunFolder};
use qlaunch_shared::{Error, ErrorKind, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::carry::{Carried, Opening, Setup, now};
use super::glance::ticket;
use super::listener::{Listener, Notice};
use super::requests::Requests;
use crate::backend::{Backend, Ticket};
use crate::engine::{Policy, Stage, State, apply, decide, fold, is_over};
use crate::follow::Follower;
use crate::journal::{Entry, Journal, Line};
use crate::plan::PlannedRun;
use crate::transport::Transport;

/// Time between two looks at the screen and at what people ask for.
const TICK: Duration = Duration::from_millis(100);
/// Longest time between two tries to reach a host whose link was lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// A session at work.
pub struct Drive<'a, B, T> {
    pub(super) run: &'a PlannedRun,
    pub(super) setup: &'a Setup,
    pub(super) backend: B,
    pub(super) transport: T,
    pub(super) listener: &'a mut dyn Listener,
    pub(super) state: State,
    pub(super) followers: HashMap<String, Follower>,
    /// What running jobs wait for, as far as that has been told.
    pub(super) waiting: HashMap<String, Option<String>>,
    /// When the scheduler is asked next, and how long the time between two questions is now.
    pub(super) next_poll: Instant,
    pub(super) between_polls: Duration,
    /// Most tasks of an array.
    pub(super) array: usize,
    /// Until when nothing is handed over, because a limit on jobs is reached.
    pub(super) held_until: Option<Instant>,
    /// Distinguishes this run from another one that lay in the same folder before.
    pub(super) birth: u64,
    /// Whether the journal has a line.
    begun: bool,
    journal: Journal,
    requests: Requests,
    grace: u64,
    /// Tries to reach the host since its link was lost.
    lost: u32,
    detached: bool,
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
        Self {
            run,
            setup,
            backend,
            transport,
            listener,
            state: fold(lines),
            followers: HashMap::new(),
            waiting: HashMap::new(),
            next_poll: Instant::now(),
            between_polls: setup.pace.least,
            array: 0,
            held_until: None,
            birth: lines.first().map_or_else(now, |line| line.at),
            begun: !lines.is_empty(),
            journal,
            requests: Requests::of(&run.folder),
            grace: setup.policy.grace,
            lost: 0,
            detached: false,
        }
    }

    /// Works until the run is over or stopped.
    pub async fn work(&mut self) -> Result<()> {
        let mut stops = Stops::listen()?;
        loop {
            let stepped = self.step().await;
            let pause = self.after(stepped)?;
            self.listener.tick();
            if is_over(&self.state) || self.detached || self.is_cancelled() {
                return Ok(());
            }
            let until = Instant::now() + pause;
            while Instant::now() < until && !self.requests.any() {
                tokio::select! {
                    () = tokio::time::sleep(TICK.min(pause)) => self.listener.tick(),
                    () = stops.next() => {
                        self.stop()?;
                        break;
                    }
                }
            }
        }
    }

    /// Looks, then does everything that is to be done.
    async fn step(&mut self) -> Result<()> {
        if self.detached {
            return Ok(());
        }
        for job in self.requests.take() {
            self.note(Entry::Unwanted { job })?;
        }
        self.look().await?;
        self.act().await
    }

    /// A lost link says nothing about jobs: it is tried again, ever less often. Returns how long to wait.
    fn after(&mut self, stepped: Result<()>) -> Result<Duration> {
        match stepped {
            Ok(()) => {
                if std::mem::take(&mut self.lost) > 0 {
                    self.listener.notice(&Notice::LinkBack);
                }
                Ok(self.setup.pace.glance)
            }
            Err(error) if error.kind == ErrorKind::Unreachable && self.setup.detaches() => {
                if self.lost == 0 {
                    self.listener.notice(&Notice::LinkLost { error: &error });
                }
                self.lost += 1;
                Ok(Duration::from_millis(500).saturating_mul(1 << self.lost.min(10)).min(PATIENCE))
            }
            Err(error) => Err(error),
        }
    }

    /// Does everything that is to be done now. Each action changes the state, so it is asked again until nothing is left.
    async fn act(&mut self) -> Result<()> {
        loop {
            let actions = decide(&self.state, now(), &self.policy());
            if actions.is_empty() {
                return Ok(());
            }
            for action in actions {
                self.perform(action).await?;
            }
        }
    }

    fn policy(&self) -> Policy {
        let held = self.is_held() || self.setup.opening == Opening::Cancel;
        let jobs = if held { 0 } else { self.setup.policy.jobs };
        Policy { grace: self.grace, jobs, array: self.array, ..self.setup.policy }
    }

    /// Whether nothing is handed over now, because a limit on jobs is reached.
    pub(super) fn is_held(&self) -> bool {
        self.held_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether this session was to cancel jobs, and none of them holds a place any more.
    fn is_cancelled(&self) -> bool {
        let holds = |job: &crate::engine::Job| {
            job.unwanted && matches!(job.stage, Stage::Running { .. } | Stage::Submitting | Stage::Done)
        };
        self.setup.opening == Opening::Cancel && !self.state.jobs.iter().any(holds)
    }

    /// Jobs of a cluster go on without us. Here the first request stops gently, the second at once.
    fn stop(&mut self) -> Result<()> {
        if self.setup.detaches() {
            self.detached = true;
            return Ok(());
        }
        if self.state.stopping {
            self.grace = 0;
            return Ok(());
        }
        self.listener.notice(&Notice::Stopping);
        self.note(Entry::Stopping)
    }

    /// Writes an entry and lets it change the state.
    pub(super) fn note(&mut self, entry: Entry) -> Result<()> {
        // The first line is as old as the run: names of jobs are made from it.
        let at = if self.begun { now() } else { self.birth };
        self.begun = true;
        let line = self.journal.append(at, entry)?;
        self.state = apply(std::mem::take(&mut self.state), &line);
        // Something happens: the scheduler is asked often again.
        self.between_polls = self.setup.pace.least;
        Ok(())
    }

    /// The run's folder where its jobs are.
    pub(super) fn run_folder(&self) -> RunFolder {
        RunFolder(self.run.site.clone())
    }

    pub(super) fn folder(&self, job: &str) -> JobFolder {
        self.run_folder().job(job)
    }

    /// The job's attempt: the newest one as it was handed over.
    pub(super) fn ticket(&self, job: &str, attempt: u32) -> Ticket {
        let known = self.state.job(job).filter(|known| known.attempt == attempt);
        let array = known.and_then(|known| known.array.as_ref());
        ticket((self.run, self.birth), job, attempt, array).restarted(known.map_or(0, |known| known.restart))
    }

    /// Ends the session.
    pub fn into_carried(self) -> Carried {
        let undone = |job: &crate::engine::Job| matches!(job.stage, Stage::Waiting | Stage::Stopped { .. });
        let interrupted = self.state.stopping && self.state.jobs.iter().any(undone);
        Carried { state: self.state, journal: self.journal, interrupted, detached: self.detached }
    }
}
