//! How an attempt ended, from its witnesses in order: `outcome.json`, then `exit_code`, then nothing but its log.

use qlaunch_shared::protocol::{Outcome, Status};
use qlaunch_shared::{Error, ErrorKind, Result};

use super::contract::Ticket;
use crate::journal::Ending;
use crate::transport::Transport;

/// Most that is read of a witness.
const LIMIT: u64 = 16 << 20;
/// Bytes from the end of a log that are looked at for its last words.
const TAIL: usize = 4096;

/// Asks the witnesses of an attempt whose process is gone.
///
/// # Errors
/// Witnesses that are there and cannot be read.
pub async fn ending(transport: &impl Transport, ticket: &Ticket) -> Result<Ending> {
    let attempt = ticket.attempt();
    if let Some(bytes) = transport.read(&attempt.outcome(), 0, LIMIT).await? {
        return Ok(match serde_json::from_slice::<Outcome>(&bytes) {
            Ok(outcome) => from_outcome(outcome),
            Err(error) => Ending::Failed {
                error: Error::input(format!("the outcome cannot be read: {error}"))
                    .at(attempt.outcome())
                    .hint("use a launcher and a worker of one version"),
            },
        });
    }
    let code = transport.read(&attempt.0.join("exit_code"), 0, 64).await?;
    let code = code.and_then(|bytes| String::from_utf8_lossy(&bytes).trim().parse::<i32>().ok());
    let words = last_words(transport, ticket).await?;
    Ok(from_code(code, &words, ticket))
}

fn from_outcome(outcome: Outcome) -> Ending {
    match outcome.status {
        Status::Done => Ending::Done,
        Status::Interrupted => match outcome.error {
            // A rank or its host was lost: that is no answer to anybody's request.
            Some(error) if error.kind == ErrorKind::Unreachable => Ending::Lost { error },
            _ => Ending::Interrupted,
        },
        Status::Failed => Ending::Failed {
            error: outcome.error.unwrap_or_else(|| Error::bug("the worker failed without saying why")),
        },
    }
}

/// An exit code without an outcome. From 128 on it stands for a signal, as shells have it.
fn from_code(code: Option<i32>, words: &str, ticket: &Ticket) -> Ending {
    let log = ticket.attempt().log();
    let error = |what: String| {
        let message = if words.is_empty() { what } else { format!("{what}; its last words: {words}") };
        Error::new(ErrorKind::Bug, message).at(&log).hint(format!("read its log: `less {}`", log.display()))
    };
    match code {
        Some(85) => Ending::Interrupted,
        Some(137) => Ending::Lost {
            error: error("the worker was killed (signal 9), by the kernel when memory runs out".to_owned()),
        },
        Some(code) if code > 128 => {
            Ending::Lost { error: error(format!("the worker was ended by signal {}", code - 128)) }
        }
        Some(code) => {
            Ending::Failed { error: error(format!("the worker ended with code {code} and no outcome")) }
        }
        None => Ending::Lost { error: error("the worker is gone without a word".to_owned()) },
    }
}

/// The last line of the log that is not empty.
async fn last_words(transport: &impl Transport, ticket: &Ticket) -> Result<String> {
    let log = ticket.attempt().log();
    let mut tail = Vec::new();
    let mut offset = 0;
    while let Some(bytes) = transport.read(&log, offset, LIMIT).await?
        && !bytes.is_empty()
    {
        offset += bytes.len() as u64;
        tail = bytes;
    }
    let text = String::from_utf8_lossy(&tail[tail.len().saturating_sub(TAIL)..]).into_owned();
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Ok(line.trim().chars().filter(|c| !c.is_control()).take(200).collect())
}
