//! Follows `events.jsonl` by byte offset: each line once, torn lines when they are whole, garbage and gaps reported.

use std::path::PathBuf;

use qlaunch_shared::protocol::Event;

use crate::transport::{Chunk, Wanted};

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
    inode: Option<u64>,
    pending: Vec<u8>,
    next: u64,
}

impl Follower {
    /// Starts at the beginning of a file that need not exist yet.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, inode: None, pending: Vec::new(), next: 0 }
    }

    /// The file that is followed.
    pub const fn path(&self) -> &PathBuf {
        &self.path
    }

    /// What to read next.
    pub fn wanted(&self) -> Wanted {
        Wanted { path: self.path.clone(), from: self.offset, limit: CHUNK }
    }

    /// Takes what was read and returns what has become whole. A file that became shorter, or another file under the
    /// same name, is read from its beginning; what was said before is not said again.
    pub fn take(&mut self, chunk: &Chunk) -> Vec<Said> {
        let replaced = self.inode.is_some_and(|inode| inode != chunk.inode) || chunk.size < self.offset;
        self.inode = Some(chunk.inode);
        if replaced {
            self.offset = 0;
            self.pending.clear();
            // What was read lies somewhere in the other file.
            return Vec::new();
        }
        self.offset += chunk.bytes.len() as u64;
        self.take_bytes(&chunk.bytes)
    }

    fn take_bytes(&mut self, bytes: &[u8]) -> Vec<Said> {
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
            // Said before the file was replaced.
            Ok(event) if event.sequence < self.next => {}
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
            let mut said = follower.take_bytes(&text.as_bytes()[..split]);
            said.extend(follower.take_bytes(&text.as_bytes()[split..]));
            assert_eq!(sequences(&said), [0, 1, 2], "split at {split}");
            assert_eq!(said.len(), 3);
        }
    }

    #[test]
    fn a_file_that_shrinks_or_is_replaced_is_read_again_and_nothing_is_said_twice() {
        let (old, new) = (format!("{}{}", line(0), line(1)), format!("{}{}{}", line(0), line(1), line(2)));
        for (size, inode) in [(3, 7), (new.len() as u64, 8)] {
            let mut follower = follower();
            let chunk = |bytes: &str, size, inode| Chunk { bytes: bytes.as_bytes().to_vec(), size, inode };
            assert_eq!(follower.take(&chunk(&old, old.len() as u64, 7)).len(), 2);
            assert_eq!(follower.take(&chunk("", size, inode)), []);
            assert_eq!(follower.wanted().from, 0);
            assert_eq!(sequences(&follower.take(&chunk(&new, new.len() as u64, inode))), [2]);
        }
    }

    #[test]
    fn garbage_and_gaps_are_reported_and_do_not_stop_the_rest() {
        let text = format!("{}\u{1b}[31mthread panicked\n{}{}", line(0), line(2), line(5));
        let said = follower().take_bytes(text.as_bytes());
        assert_eq!(sequences(&said), [0, 2, 5]);
        assert!(said.contains(&Said::Garbage("[31mthread panicked".to_owned())), "{said:?}");
        assert!(said.contains(&Said::Gap(2)), "{said:?}");
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let mut follower = follower();
        let said: Vec<Said> = (0..3).flat_map(|_| follower.take_bytes(&vec![b'x'; LONGEST])).collect();
        assert!(!said.is_empty() && follower.pending.len() <= LONGEST);
    }
}
