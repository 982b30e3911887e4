//! How an attempt ended, from its witnesses in order: `outcome.json`, then `exit_code`, then nothing but its log.

use qlaunch_shared::protocol::{Outcome, Status};
use qlaunch_shared::{Error, ErrorKind, Result};

use super::contract::Ticket;
use crate::journal::{Ending, Loss};
use crate::transport::{Transport, Wanted};

/// Most that is read of a witness.
const LIMIT: u64 = 16 << 20;
/// Bytes from the end of a log that are looked at for its last words.
const TAIL: u64 = 4096;

/// Asks the witnesses of an attempt whose process is gone.
///
/// # Errors
/// Witnesses that are there and cannot be read.
pub async fn ending(transport: &impl Transport, ticket: &Ticket) -> Result<Ending> {
    match witnessed(transport, ticket).await? {
        Some(ending) => Ok(ending),
        None => Ok(from_code(None, &last_words(transport, ticket).await?, ticket)),
    }
}

/// How an attempt ended, if the worker or the script around it said so.
///
/// # Errors
/// Witnesses that are there and cannot be read.
pub async fn witnessed(transport: &impl Transport, ticket: &Ticket) -> Result<Option<Ending>> {
    let attempt = ticket.attempt();
    if let Some(bytes) = transport.read(&attempt.outcome(), 0, LIMIT).await? {
        return Ok(Some(match serde_json::from_slice::<Outcome>(&bytes) {
            Ok(outcome) => from_outcome(outcome),
            Err(error) => Ending::Failed {
                error: Error::input(format!("the outcome cannot be read: {error}"))
                    .at(attempt.outcome())
                    .hint("use a launcher and a worker of one version"),
            },
        }));
    }
    let code = transport.read(&attempt.0.join("exit_code"), 0, 64).await?;
    let code = code.and_then(|bytes| String::from_utf8_lossy(&bytes).trim().parse::<i32>().ok());
    match code {
        None => Ok(None),
        Some(code) => Ok(Some(from_code(Some(code), &last_words(transport, ticket).await?, ticket))),
    }
}

fn from_outcome(outcome: Outcome) -> Ending {
    match outcome.status {
        Status::Done => Ending::Done,
        Status::Interrupted => match outcome.error {
            // A rank or its host was lost: that is no answer to anybody's request.
            Some(error) if error.kind == ErrorKind::Unreachable => {
                Ending::Lost { error, class: Loss::Infrastructure }
            }
            _ => Ending::Interrupted,
        },
        Status::Failed => Ending::Failed {
            error: outcome.error.unwrap_or_else(|| Error::bug("the worker failed without saying why")),
        },
    }
}

/// An exit code without an outcome. From 128 on it stands for a signal, as shells have it.
fn from_code(code: Option<i32>, words: &str, ticket: &Ticket) -> Ending {
    let log = ticket.first().log();
    let error = |what: String| {
        let message = if words.is_empty() { what } else { format!("{what}; its last words: {words}") };
        Error::new(ErrorKind::Bug, message).at(&log).hint(format!("read its log: `less {}`", log.display()))
    };
    match code {
        Some(85) => Ending::Interrupted,
        // Job scripts end with it when what a baseline leaves is missing.
        Some(75) => Ending::Unstarted { error: error("what the job needs is not there".to_owned()) },
        Some(137) => Ending::Lost {
            error: error("the worker was killed (signal 9), by the kernel when memory runs out".to_owned()),
            class: Loss::Infrastructure,
        },
        Some(code) if code > 128 => Ending::Lost {
            error: error(format!("the worker was ended by signal {}", code - 128)),
            class: Loss::Infrastructure,
        },
        Some(code) => {
            Ending::Failed { error: error(format!("the worker ended with code {code} and no outcome")) }
        }
        None => Ending::Lost {
            error: error("the worker is gone without a word".to_owned()),
            class: Loss::Infrastructure,
        },
    }
}

/// The last line of the log that is not empty.
///
/// # Errors
/// A log that is there and cannot be read.
pub async fn last_words(transport: &impl Transport, ticket: &Ticket) -> Result<String> {
    let log = ticket.first().log();
    // Its size first: a log can be gigabytes.
    let wanted = |from| [Wanted { path: log.clone(), from, limit: TAIL }];
    let Some(start) = transport.read_many(&wanted(0)).await?.pop().flatten() else {
        return Ok(String::new());
    };
    let tail = match start.size <= TAIL {
        true => start.bytes,
        false => {
            let end = transport.read_many(&wanted(start.size - TAIL)).await?.pop().flatten();
            end.map(|chunk| chunk.bytes).unwrap_or_default()
        }
    };
    let text = String::from_utf8_lossy(&tail).into_owned();
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Ok(line.trim().chars().filter(|c| !c.is_control()).take(200).collect())
}
