//! Follows `events.jsonl` by byte offset: each line once, torn lines when they are whole, garbage and gaps reported.

use std::path::PathBuf;

use qlaunch_shared::Result;
use qlaunch_shared::protocol::Event;

use crate::transport::Transport;

/// Bytes that are fetched at a time.
const CHUNK: u64 = 1 << 20;
/// Longest line that is waited for; a longer one is garbage.
const LONGEST: usize = 1 << 20;

/// What a worker said.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// An event.
    Event(Box<Event>),
    /// A line that is no event, shortened.
    Garbage(String),
    /// This many lines are missing.
    Gap(u64),
}

/// A place in the events of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follower {
    path: PathBuf,
    offset: u64,
    pending: Vec<u8>,
    next: u64,
}

impl Follower {
    /// Starts at the beginning of a file that need not exist yet.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, pending: Vec::new(), next: 0 }
    }

    /// Reads what is new.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub async fn read(&mut self, transport: &impl Transport) -> Result<Vec<Said>> {
        let mut said = Vec::new();
        while let Some(bytes) = transport.read(&self.path, self.offset, CHUNK).await?
            && !bytes.is_empty()
        {
            self.offset += bytes.len() as u64;
            said.extend(self.take(&bytes));
        }
        Ok(said)
    }

    /// Takes bytes and returns what has become whole.
    fn take(&mut self, bytes: &[u8]) -> Vec<Said> {
        self.pending.extend_from_slice(bytes);
        let mut said = Vec::new();
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            self.line(&line, &mut said);
        }
        if self.pending.len() > LONGEST {
            let line = std::mem::take(&mut self.pending);
            said.push(garbage(&line));
        }
        said
    }

    fn line(&mut self, line: &[u8], said: &mut Vec<Said>) {
        match serde_json::from_slice::<Event>(line) {
            Ok(event) => {
                if event.sequence > self.next {
                    said.push(Said::Gap(event.sequence - self.next));
                }
                self.next = event.sequence + 1;
                said.push(Said::Event(Box::new(event)));
            }
            Err(_) if line.iter().all(u8::is_ascii_whitespace) => {}
            // A line that is no event still takes a place in the worker's count.
            Err(_) => {
                self.next += 1;
                said.push(garbage(line));
            }
        }
    }
}

fn garbage(line: &[u8]) -> Said {
    let text = String::from_utf8_lossy(line);
    Said::Garbage(text.trim().chars().filter(|c| !c.is_control()).take(80).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sequence: u64) -> String {
        format!("{{\"sequence\":{sequence},\"at\":0,\"event\":\"finished\"}}\n")
    }

    fn follower() -> Follower {
        Follower::new(PathBuf::from("events.jsonl"))
    }

    fn sequences(said: &[Said]) -> Vec<u64> {
        said.iter()
            .filter_map(|said| if let Said::Event(event) = said { Some(event.sequence) } else { None })
            .collect()
    }

    #[test]
    fn every_split_of_the_bytes_gives_the_same_events_once() {
        let text = format!("{}{}{}", line(0), line(1), line(2));
        for split in 0..=text.len() {
            let mut follower = follower();
            let mut said = follower.take(&text.as_bytes()[..split]);
            said.extend(follower.take(&text.as_bytes()[split..]));
            assert_eq!(sequences(&said), [0, 1, 2], "split at {split}");
            assert_eq!(said.len(), 3);
        }
    }

    #[test]
    fn garbage_and_gaps_are_reported_and_do_not_stop_the_rest() {
        let text = format!("{}\u{1b}[31mthread panicked\n{}{}", line(0), line(2), line(5));
        let said = follower().take(text.as_bytes());
        assert_eq!(sequences(&said), [0, 2, 5]);
        assert!(said.contains(&Said::Garbage("[31mthread panicked".to_owned())), "{said:?}");
        assert!(said.contains(&Said::Gap(2)), "{said:?}");
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let mut follower = follower();
        let said: Vec<Said> = (0..3).flat_map(|_| follower.take(&vec![b'x'; LONGEST])).collect();
        assert!(!said.is_empty() && follower.pending.len() <= LONGEST);
    }
}
