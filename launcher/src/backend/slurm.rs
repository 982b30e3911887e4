//! Jobs of SLURM, over any transport. Their names are their identity; ids are given away twice after a crash.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use qlaunch_shared::{Error, ErrorKind, Result};
use tokio::time::Instant;

use super::contract::{Backend, Handed, Poll, Ticket};
use super::ending::witnessed;
use super::slurm_answers::{ACCOUNTS, ARRAYS, CANCEL, FIND, LOOK, SUBMIT, Seen, look};
use super::slurm_queue::{COLUMNS, Row, Standing, accounts, key, rows, standing, waiting};
use super::slurm_refusal::{Refusal, refusal};
use crate::journal::{Ending, Handle, Loss};
use crate::transport::{CommandOutput, Transport};

/// The reason of a job that SLURM dropped because what it waited for has failed. One that a person cancels while it waits
/// keeps the reason `Dependency`.
const DROPPED: &str = "DependencyNeverSatisfied";

/// SLURM of one cluster.
#[derive(Debug)]
pub struct Slurm<T> {
    transport: T,
    cluster: String,
    /// Milliseconds since the Unix epoch before which no job begins.
    begin: Option<u64>,
    /// How long a job may be over or unknown without a witness: file systems lag behind the scheduler.
    lag: Duration,
    /// Since when jobs are over or unknown, by name.
    absent: RefCell<HashMap<String, Instant>>,
}

impl<T: Transport> Slurm<T> {
    /// SLURM as it is reached over a transport.
    pub fn over(transport: T, cluster: impl Into<String>, lag: Duration) -> Self {
        Self { transport, cluster: cluster.into(), begin: None, lag, absent: RefCell::default() }
    }

    /// The same, whose jobs do not begin before a moment, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn not_before(self, begin: Option<u64>) -> Self {
        Self { begin, ..self }
    }

    /// What sbatch is told of the moment: the time until then, because the cluster's clock may have another zone.
    fn begin(&self) -> Option<String> {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        let left = u128::from(self.begin?).checked_sub(now).filter(|left| *left > 0)?;
        Some(format!("--begin=now+{}", left.div_ceil(1000)))
    }

    fn unreachable(&self, output: &CommandOutput) -> Error {
        match refusal(&output.stderr, &self.cluster) {
            Refusal::Unknown(error) => error,
            _ => Error::new(
                ErrorKind::Unreachable,
                format!("the scheduler does not answer: {}", output.stderr.trim()),
            )
            .hint(format!("look at it: `qlaunch cluster check {}`", self.cluster)),
        }
    }

    /// Whether a job has been over or unknown for longer than file systems lag.
    fn is_gone(&self, name: &str) -> bool {
        let since = *self.absent.borrow_mut().entry(name.to_owned()).or_insert_with(Instant::now);
        since.elapsed() >= self.lag
    }

    /// Gives sbatch a script with its arguments, once.
    async fn sbatch(&self, call: Call<'_>, after: &[Handle], script: &[&str]) -> Result<Handed> {
        let Call { token, folder, tasks, log, chdir } = call;
        let mut arguments = vec![token.to_owned(), folder.display().to_string(), tasks.len().to_string()];
        arguments.extend(tasks.iter().map(|task| task.first().0.display().to_string()));
        arguments.push(format!("--job-name={token}"));
        arguments.push(format!("--comment=qlaunch:{token}"));
        arguments.push(format!("--output={log}"));
        arguments.push(format!("--chdir={}", chdir.display()));
        let id = |handle: &Handle| match handle {
            Handle::Slurm { id, .. } => Some(id.clone()),
            _ => None,
        };
        let ids: Vec<String> = after.iter().filter_map(id).collect();
        if !ids.is_empty() {
            arguments.push(format!("--dependency=afterok:{}", ids.join(":")));
            // Otherwise a job whose dependency failed would wait for ever.
            arguments.push("--kill-on-invalid-dep=yes".to_owned());
        }
        arguments.extend(self.begin());
        arguments.extend(script.iter().map(|word| (*word).to_owned()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = self.transport.shell(SUBMIT, &arguments).await?;
        if output.code == Some(0) {
            let id = output.stdout.trim().to_owned();
            return Ok(Handed::Taken(Handle::Slurm { id, name: token.to_owned() }));
        }
        if output.code == Some(91) {
            return Err(self.unreachable(&output));
        }
        match refusal(&output.stderr, &self.cluster) {
            Refusal::Later(why) => Ok(Handed::Later(why)),
            Refusal::Final(error) | Refusal::Unknown(error) => Err(error),
        }
    }

    async fn take_back(&self, ticket: &Ticket, handle: &Handle, now: &str) -> Result<()> {
        let Handle::Slurm { id, name } = handle else { return Ok(()) };
        let folder = ticket.first().0.display().to_string();
        let index = id.split_once('_').map_or("", |(_, index)| index);
        let output = self.transport.shell(CANCEL, &[name, &folder, index, now]).await?;
        if output.code == Some(0) { Ok(()) } else { Err(self.unreachable(&output)) }
    }

    /// What became of one attempt.
    async fn judge(
        &self,
        (ticket, handle): (&Ticket, &Handle),
        row: Option<&Row>,
        (seen, answered): (Seen, bool),
    ) -> Result<Poll> {
        let ticket = ticket.restarted(seen.restart);
        let restart = seen.restart;
        let running = |waiting| Poll::Running { restart, waiting };
        let active = match row.map(|row| (standing(&row.state), row)) {
            Some((Standing::Waiting, row)) => Some(running(Some(waiting(&row.reason)))),
            Some((Standing::Active, _)) => Some(running(None)),
            Some((Standing::Unknown, row)) => Some(running(Some(format!("SLURM calls it {}", row.state)))),
            Some((Standing::Over, _)) | None => None,
        };
        if let Some(poll) = active {
            self.absent.borrow_mut().remove(&ticket.token);
            return Ok(poll);
        }
        if seen.witness
            && let Some(ending) = witnessed(&self.transport, &ticket).await?
        {
            // Without the scheduler's word a stop at a safe point may be the queue's business.
            let is_final = answered || matches!(ending, Ending::Done | Ending::Failed { .. });
            if !is_final {
                return Ok(running(None));
            }
            let (Ending::Interrupted | Ending::Lost { .. }) = ending else {
                return Ok(Poll::Ended { restart, ending });
            };
            // Stopped by whom? One that left the queue long ago is in the accounts, where there are any.
            let row = self.row_or_account(row, (&ticket, handle)).await?;
            let ending = row.filter(is_cancelled).map_or(ending, |row| cancelled(&row));
            return Ok(Poll::Ended { restart, ending });
        }
        if !answered || !self.is_gone(&ticket.token) {
            return Ok(running(None));
        }
        let account = self.row_or_account(row, (&ticket, handle)).await?;
        let ending = without_witness(account.as_ref(), &ticket);
        self.absent.borrow_mut().remove(&ticket.token);
        Ok(Poll::Ended { restart, ending })
    }

    /// What the queue says of a job, or what the accounts say of one that left it, where there are accounts.
    async fn row_or_account(
        &self,
        row: Option<&Row>,
        (ticket, handle): (&Ticket, &Handle),
    ) -> Result<Option<Row>> {
        if let Some(row) = row {
            return Ok(Some(row.clone()));
        }
        let name = if let Handle::Slurm { name, .. } = handle { name } else { &ticket.token };
        let output = self.transport.shell(ACCOUNTS, &[name]).await?;
        Ok(accounts(&output.stdout).remove(&called(ticket, handle)))
    }
}

/// Whether SLURM says that somebody took a job back, rather than that its dependency failed.
fn is_cancelled(row: &Row) -> bool {
    row.state.starts_with("CANCELLED") && row.reason != DROPPED
}

/// Whoever cancels a job by hand does not want it back.
fn cancelled(row: &Row) -> Ending {
    let message = format!("it was cancelled ({} {})", row.id, row.state);
    Ending::Failed {
        error: Error::new(ErrorKind::Interrupted, message).hint("submit the sweep again to run it"),
    }
}

/// How a job ended that left nothing but the scheduler's word.
fn without_witness(row: Option<&Row>, ticket: &Ticket) -> Ending {
    let log = ticket.first().log();
    let error = |what: String| {
        Error::new(ErrorKind::Bug, what).at(&log).hint(format!("read its log: `less {}`", log.display()))
    };
    let lost = |what: String, class| Ending::Lost { error: error(what), class };
    let Some(row) = row else {
        return lost(
            "the scheduler has no trace of the job, and it left none".to_owned(),
            Loss::Infrastructure,
        );
    };
    let on = if row.nodes.is_empty() { String::new() } else { format!(" on {}", row.nodes) };
    let word = row.state.split([' ', '+']).next().unwrap_or_default();
    match word {
        "TIMEOUT" | "DEADLINE" => Ending::Lost {
            error: error(format!("its time was over{on}"))
                .hint("give it more: `slurm.time` in the cluster's profile"),
            class: Loss::Timeout,
        },
        "PREEMPTED" => lost(format!("a more important job took its place{on}"), Loss::Preempted),
        "OUT_OF_MEMORY" => Ending::Failed {
            error: Error::input(format!("it needed more memory than it had{on}"))
                .at(&log)
                .hint("give it more: `slurm.memory` in the cluster's profile"),
        },
        "CANCELLED" if row.reason == DROPPED => {
            Ending::Unstarted { error: error(format!("the scheduler dropped it: {}", row.reason)) }
        }
        "CANCELLED" => cancelled(row),
        "FAILED" => lost(
            format!(
                "it failed{on} before the worker could say why ({}); a log that cannot be written does that",
                row.reason
            ),
            Loss::Infrastructure,
        ),
        "COMPLETED" => lost(format!("it ended{on} without a word: is the disk full?"), Loss::Infrastructure),
        _ => lost(format!("SLURM says {}{on}", row.state), Loss::Infrastructure),
    }
}

impl<T: Transport> Backend for Slurm<T> {
    async fn submit(&self, ticket: &Ticket, after: &[Handle]) -> Result<Handed> {
        let log = pattern(&ticket.first().log());
        let script = ticket.job().script().display().to_string();
        let call =
            Call { token: &ticket.token, folder: &ticket.first().0, tasks: &[], log, chdir: &ticket.folder };
        self.sbatch(call, after, &[&script, &ticket.attempt.to_string()]).await
    }

    async fn submit_array(&self, tasks: &[Ticket], after: &[Handle]) -> Result<Handed> {
        let Some(array) = tasks.first().and_then(|task| task.array.as_ref()) else {
            return Err(Error::bug("an array without tasks"));
        };
        let log = format!("{}/%a.log", pattern(&array.folder));
        let script = array.folder.join("job.sh").display().to_string();
        let call = Call { token: &array.token, folder: &array.folder, tasks, log, chdir: &array.folder };
        self.sbatch(call, after, &[&script]).await
    }

    async fn array_size(&self) -> Result<usize> {
        let output = self.transport.shell(ARRAYS, &[]).await?;
        // A cluster that does not say so gets jobs one by one.
        Ok(output.stdout.trim().parse().unwrap_or(0))
    }

    async fn find(&self, ticket: &Ticket) -> Result<Option<Handle>> {
        let (token, folder) = match &ticket.array {
            None => (&ticket.token, ticket.first().0),
            Some(array) => (&array.token, array.folder.clone()),
        };
        let output = self.transport.shell(FIND, &[token, &folder.display().to_string()]).await?;
        if output.code != Some(0) {
            return Err(self.unreachable(&output));
        }
        let id = output.stdout.trim().to_owned();
        let handle = (!id.is_empty()).then(|| Handle::Slurm { id, name: token.clone() });
        Ok(handle.map(|handle| match &ticket.array {
            None => handle,
            Some(array) => handle.task(array.index),
        }))
    }

    async fn poll(&self, asked: &[(Ticket, Handle)]) -> Result<Vec<Poll>> {
        let folders: Vec<String> =
            asked.iter().map(|(ticket, _)| ticket.first().0.display().to_string()).collect();
        let mut arguments = vec![COLUMNS];
        arguments.extend(folders.iter().map(String::as_str));
        let output = self.transport.shell(LOOK, &arguments).await?;
        let (queue, seen) = look(&output.stdout);
        if seen.len() != asked.len() {
            return Err(self.unreachable(&output));
        }
        let found = queue.map(rows).unwrap_or_default();
        let mut polls = Vec::with_capacity(asked.len());
        for ((ticket, handle), seen) in asked.iter().zip(seen) {
            let row = found.get(&called(ticket, handle));
            polls.push(self.judge((ticket, handle), row, (seen, queue.is_some())).await?);
        }
        Ok(polls)
    }

    async fn cancel(&self, ticket: &Ticket, handle: &Handle) -> Result<()> {
        self.take_back(ticket, handle, "").await
    }

    async fn kill(&self, ticket: &Ticket, handle: &Handle) -> Result<()> {
        self.take_back(ticket, handle, "now").await
    }
}

/// What sbatch is told of an attempt or an array.
struct Call<'a> {
    token: &'a str,
    folder: &'a Path,
    tasks: &'a [Ticket],
    log: String,
    chdir: &'a Path,
}

/// A path in the name of a log: SLURM reads `%` in it as the beginning of a pattern.
fn pattern(path: &Path) -> String {
    path.display().to_string().replace('%', "%%")
}

/// What the queue's row of an attempt is found by.
fn called(ticket: &Ticket, handle: &Handle) -> String {
    match handle {
        Handle::Slurm { id, name } => key(name, id),
        _ => ticket.token.clone(),
    }
}
