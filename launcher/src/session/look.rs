//! What a session sees of its jobs: what workers say, and what became of them.

use std::fs;
use std::path::Path;

use qlaunch_shared::protocol::{EventBody, RunFolder};
use qlaunch_shared::{Error, Result};
use tokio::time::Instant;

use super::drive::Drive;
use super::listener::Notice;
use crate::backend::{Backend, Poll, Ticket};
use crate::engine::Stage;
use crate::follow::{Follower, Said};
use crate::journal::{Entry, Handle};
use crate::transport::{Transport, Wanted};

/// Most that is brought home of an attempt's file.
const LIMIT: u64 = 64 << 20;

impl<B: Backend, T: Transport> Drive<'_, B, T> {
    /// Reads what running jobs say and, when it is time, asks what became of them.
    pub(super) async fn look(&mut self) -> Result<()> {
        let running: Vec<(String, u32, Handle)> = self
            .state
            .jobs
            .iter()
            .filter_map(|job| match &job.stage {
                Stage::Running { handle, .. } => Some((job.name.clone(), job.attempt, handle.clone())),
                _ => None,
            })
            .collect();
        if running.is_empty() {
            return Ok(());
        }
        if Instant::now() < self.next_poll {
            // A worker that says it is done is asked at once.
            if !self.hear().await? {
                return Ok(());
            }
        }
        let asked: Vec<(Ticket, Handle)> = running
            .iter()
            .map(|(job, attempt, handle)| (self.ticket(job, *attempt), handle.clone()))
            .collect();
        // Asked first, read second: what was said before the end is never missed.
        let polls = self.backend.poll(&asked).await?;
        for ((job, attempt, _), poll) in running.iter().zip(&polls) {
            let (Poll::Running { restart, .. } | Poll::Ended { restart, .. }) = poll;
            self.follow_restart(job, *attempt, *restart);
        }
        self.hear().await?;
        self.between_polls = self.between_polls.mul_f64(1.5).min(self.setup.pace.most);
        for ((job, attempt, _), poll) in running.iter().zip(polls) {
            self.take(job, *attempt, poll).await?;
        }
        self.next_poll = Instant::now() + self.between_polls;
        Ok(())
    }

    async fn take(&mut self, job: &str, attempt: u32, poll: Poll) -> Result<()> {
        match poll {
            Poll::Running { waiting, .. } => {
                if self.waiting.insert(job.to_owned(), waiting.clone()).flatten() != waiting {
                    self.between_polls = self.setup.pace.least;
                    self.listener.notice(&Notice::Waiting { job, reason: waiting.as_deref() });
                }
                Ok(())
            }
            Poll::Ended { restart, ending } => {
                self.bring_home(&self.ticket(job, attempt).restarted(restart)).await?;
                self.followers.remove(job);
                self.waiting.remove(job);
                // Its place is free.
                self.held_until = None;
                self.listener.notice(&Notice::Ended { job, ending: &ending });
                self.note(Entry::Ended { job: job.to_owned(), attempt, restart, ending })
            }
        }
    }

    /// Reads all followed files in one go. Says whether a worker has come to its end.
    async fn hear(&mut self) -> Result<bool> {
        let jobs: Vec<String> = self.followers.keys().cloned().collect();
        let wanted: Vec<Wanted> =
            jobs.iter().filter_map(|job| Some(self.followers.get(job)?.wanted())).collect();
        let mut ended = false;
        for (job, chunk) in jobs.iter().zip(self.transport.read_many(&wanted).await?) {
            let (Some(chunk), Some(follower)) = (chunk, self.followers.get_mut(job)) else {
                continue;
            };
            for said in follower.take(&chunk) {
                let last = |body: &EventBody| matches!(body, EventBody::Finished | EventBody::Failed { .. });
                ended |= matches!(&said, Said::Event(event) if last(&event.body));
                self.listener.notice(&Notice::Said { job, said: &said });
            }
        }
        Ok(ended)
    }

    /// Follows an attempt from its first event on.
    pub(super) fn watch(&mut self, job: &str, attempt: u32, again: bool) {
        let events = self.ticket(job, attempt).attempt().events();
        self.followers.insert(job.to_owned(), Follower::new(events));
        self.next_poll = Instant::now();
        self.listener.notice(&match again {
            true => Notice::TakenOver { job, attempt },
            false => Notice::Started { job, attempt },
        });
    }

    /// A job that the scheduler started again writes elsewhere.
    fn follow_restart(&mut self, job: &str, attempt: u32, restart: u32) {
        let events = self.ticket(job, attempt).restarted(restart).attempt().events();
        let new = self.followers.get(job).is_none_or(|follower| *follower.path() != events);
        if new {
            self.followers.insert(job.to_owned(), Follower::new(events));
            if restart > 0 {
                self.listener.notice(&Notice::Restarted { job, restart });
            }
        }
    }

    /// Copies what judging and reading need to the run's folder here, as the attempt's first and only start.
    pub(super) async fn bring_home(&self, ticket: &Ticket) -> Result<()> {
        if self.run.site == self.run.folder {
            return Ok(());
        }
        let job = ticket.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let here = RunFolder(self.run.folder.clone()).job(&job).attempt(ticket.attempt);
        let there = ticket.attempt();
        let files = [
            (there.outcome(), here.outcome()),
            (there.events(), here.events()),
            (ticket.first().log(), here.log()),
        ];
        let wanted = files.each_ref().map(|(path, _)| Wanted { path: path.clone(), from: 0, limit: LIMIT });
        for (chunk, (_, path)) in self.transport.read_many(&wanted).await?.into_iter().zip(&files) {
            if let Some(chunk) = chunk {
                write(path, &chunk.bytes)?;
            }
        }
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|error| Error::io("make the folder", folder, &error))?;
    fs::write(path, bytes).map_err(|error| Error::io("write", path, &error))
}
