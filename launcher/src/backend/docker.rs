//! Jobs in containers of Docker or podman, over any transport. Their names are their identity, and a label says so.

use qlaunch_shared::{Error, ErrorKind, Result};

use super::contract::{Backend, Handed, Poll, Ticket};
use super::docker_answers::{Container, FIND, LOOK, SIGNAL, SUBMIT, look};
use super::docker_refusal::refusal;
use super::ending::{last_words, witnessed};
use crate::journal::{Ending, Handle, Loss};
use crate::plan::DockerExtras;
use crate::transport::{CommandOutput, Transport};

/// Docker or podman of one host.
#[derive(Debug)]
pub struct Docker<T> {
    transport: T,
    cluster: String,
    settings: DockerExtras,
}

impl<T: Transport> Docker<T> {
    /// Containers as they are reached over a transport.
    pub fn over(transport: T, cluster: impl Into<String>, settings: DockerExtras) -> Self {
        Self { transport, cluster: cluster.into(), settings }
    }

    /// Runs a script, which gets program and address before its own arguments.
    async fn ask(&self, script: &str, arguments: &[&str]) -> Result<CommandOutput> {
        let address = self.settings.address.as_deref().unwrap_or_default();
        let mut all = vec![self.settings.runtime.name(), address];
        all.extend(arguments);
        self.transport.shell(script, &all).await
    }

    fn refusal(&self, output: &CommandOutput) -> Error {
        refusal(&output.stderr, &self.settings.image, &self.cluster)
    }

    /// What went wrong with the daemon, where nobody knows what became of the container.
    fn unreachable(&self, output: &CommandOutput) -> Error {
        let error = self.refusal(output);
        Error { kind: ErrorKind::Unreachable, ..error }
    }

    async fn signal(&self, ticket: &Ticket, signal: &str) -> Result<()> {
        let output = self.ask(SIGNAL, &[signal, &ticket.token]).await?;
        if output.code == Some(0) { Ok(()) } else { Err(self.unreachable(&output)) }
    }

    /// What became of one attempt; none if nobody knows.
    async fn judge(&self, ticket: &Ticket, container: &Container, witness: bool) -> Result<Option<Ending>> {
        if *container == Container::Running {
            return Ok(None);
        }
        let told = if witness { witnessed(&self.transport, ticket).await? } else { None };
        let told = match (told, container) {
            (Some(ending @ (Ending::Done | Ending::Failed { .. })), _) => return Ok(Some(ending)),
            // Without the daemon's word the worker may still be at it.
            (_, Container::Unknown) => return Ok(None),
            (told, _) => told,
        };
        let words = last_words(&self.transport, ticket).await?;
        let ending = match (container, told) {
            (Container::Over { out_of_memory: true, .. }, _) => out_of_memory(ticket),
            (_, Some(ending)) => ending,
            (Container::Over { code, complaint, .. }, None) => without_word(*code, complaint, &words, ticket),
            _ => lost("the daemon has no trace of the container, and it left no outcome", &words, ticket),
        };
        Ok(Some(ending))
    }
}

fn error(kind: ErrorKind, message: String, ticket: &Ticket) -> Error {
    let log = ticket.first().log();
    Error::new(kind, message).at(&log).hint(format!("read its log: `less {}`", log.display()))
}

fn with_words(message: &str, words: &str) -> String {
    if words.is_empty() { message.to_owned() } else { format!("{message}; its last words: {words}") }
}

fn lost(message: &str, words: &str, ticket: &Ticket) -> Ending {
    let error = error(ErrorKind::Bug, with_words(message, words), ticket);
    Ending::Lost { error, class: Loss::Infrastructure }
}

/// Trying again would end the same way.
fn out_of_memory(ticket: &Ticket) -> Ending {
    let error = Error::input("it needed more memory than its container had").at(ticket.first().log());
    Ending::Failed { error: error.hint("give it more: `docker.memory` in the cluster's profile") }
}

/// How a container ended whose worker left no outcome.
fn without_word(code: i32, complaint: &str, words: &str, ticket: &Ticket) -> Ending {
    let complaint = if complaint.is_empty() { String::new() } else { format!(" ({complaint})") };
    match code {
        85 => Ending::Interrupted,
        // A daemon that was killed says so of every container that it lost.
        0 => lost(
            &format!(
                "the container ended without an outcome{complaint}: the daemon was restarted in the middle, or the disk is full"
            ),
            words,
            ticket,
        ),
        137 => lost(
            &format!(
                "the container was killed (signal 9){complaint}, with its daemon, by hand, or when memory ran out"
            ),
            words,
            ticket,
        ),
        code if code > 128 => {
            lost(&format!("the worker was ended by signal {}{complaint}", code - 128), words, ticket)
        }
        code => {
            let message = format!("the container ended with code {code} and no outcome{complaint}");
            Ending::Failed { error: error(ErrorKind::Bug, with_words(&message, words), ticket) }
        }
    }
}

impl<T: Transport> Backend for Docker<T> {
    // A container cannot be told to wait for another one: the engine hands candidates over when their baselines are done.
    async fn submit(&self, ticket: &Ticket, _after: &[Handle]) -> Result<Handed> {
        let cpus = self.settings.cpus.map(|cpus| cpus.to_string()).unwrap_or_default();
        let gpus = self.settings.gpus.to_string();
        let (folder, attempt) = (ticket.folder.display().to_string(), ticket.attempt.to_string());
        let output = self.ask(SUBMIT, &[&cpus, &gpus, &ticket.token, &folder, &attempt]).await?;
        let said = output.stdout.lines().last().unwrap_or_default().trim().to_owned();
        match output.code {
            Some(0) => Ok(Handed::Taken(Handle::Container { id: said, name: ticket.token.clone() })),
            Some(92) => Ok(Handed::Later(said)),
            Some(91) => Err(self.unreachable(&output)),
            _ => Err(self.refusal(&output)),
        }
    }

    async fn find(&self, ticket: &Ticket) -> Result<Option<Handle>> {
        let folder = ticket.first().0.display().to_string();
        let output = self.ask(FIND, &[&ticket.token, &folder]).await?;
        if output.code != Some(0) {
            return Err(self.unreachable(&output));
        }
        let id = output.stdout.trim().to_owned();
        Ok((!id.is_empty()).then(|| Handle::Container { id, name: ticket.token.clone() }))
    }

    async fn poll(&self, asked: &[(Ticket, Handle)]) -> Result<Vec<Poll>> {
        let pairs = asked
            .iter()
            .flat_map(|(ticket, _)| [ticket.token.clone(), ticket.first().0.display().to_string()]);
        let pairs: Vec<String> = pairs.collect();
        let output = self.ask(LOOK, &pairs.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        let (answered, seen) = look(&output.stdout);
        if seen.len() != asked.len() {
            return Err(self.unreachable(&output));
        }
        let mut polls = Vec::with_capacity(asked.len());
        for ((ticket, _), seen) in asked.iter().zip(&seen) {
            polls.push(match self.judge(ticket, &seen.container, seen.witness).await? {
                Some(ending) => Poll::Ended { restart: 0, ending },
                None => Poll::Running { restart: 0, waiting: None },
            });
        }
        let ended = polls.iter().any(|poll| matches!(poll, Poll::Ended { .. }));
        if answered || ended { Ok(polls) } else { Err(self.unreachable(&output)) }
    }

    async fn cancel(&self, ticket: &Ticket, _handle: &Handle) -> Result<()> {
        self.signal(ticket, "TERM").await
    }

    async fn kill(&self, ticket: &Ticket, _handle: &Handle) -> Result<()> {
        self.signal(ticket, "KILL").await
    }
}
