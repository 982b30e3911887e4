//! The journal on disk: appended and synced line by line, locked by one launcher at a time, readable after any crash.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use qlaunch_shared::{Error, Result};
use rustix::fs::{FlockOperation, flock};

use super::entry::{Entry, Line};

/// An open journal; whoever holds it drives the run.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Opens or creates a journal, takes its lock, cuts off a torn tail, and returns what it says.
    ///
    /// # Errors
    /// A journal that another launcher holds, that cannot be written, or that is damaged before its tail.
    pub fn open(path: &Path) -> Result<(Self, Vec<Line>)> {
        let fault = |error: std::io::Error| Error::io("open the journal", path, &error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(fault)?;
        lock(&file, path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(fault)?;
        let (lines, good) = parse(&bytes).map_err(|error| error.at(path))?;
        file.set_len(good as u64).map_err(fault)?;
        file.seek(SeekFrom::End(0)).map_err(fault)?;
        Ok((Self { file, path: path.to_owned() }, lines))
    }

    /// Writes one entry and waits until it is on disk.
    ///
    /// # Errors
    /// A disk that is full or gone.
    pub fn append(&mut self, at: u64, entry: Entry) -> Result<Line> {
        let line = Line { at, entry };
        let mut text = serde_json::to_vec(&line)
            .map_err(|error| Error::bug(format!("cannot spell a journal entry: {error}")))?;
        text.push(b'\n');
        self.file
            .write_all(&text)
            .and_then(|()| self.file.sync_data())
            .map_err(|error| Error::io("write the journal", &self.path, &error))?;
        Ok(line)
    }
}

/// Takes the lock of a journal, or refuses after half a second: a child that a dead launcher was about to start holds the
/// launcher's lock until it has become the program it will be.
fn lock(file: &File, path: &Path) -> Result<()> {
    for _ in 0..25 {
        if flock(file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(Error::input("another qlaunch drives this run").at(path).hint("wait for it, or stop it with Ctrl-C"))
}

/// Reads a journal: its lines, and how many bytes of it are whole.
///
/// The last line may be torn by a crash and is then left out: what it announced did not happen, since effects follow
/// their intent only once it is on disk.
///
/// # Errors
/// A line before the last that is not a journal entry.
pub fn parse(bytes: &[u8]) -> Result<(Vec<Line>, usize)> {
    let mut lines = Vec::new();
    let mut good = 0;
    for (index, raw) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let end = good + raw.len();
        let whole = raw.ends_with(b"\n");
        match serde_json::from_slice::<Line>(raw) {
            Ok(line) if whole => lines.push(line),
            Err(error) if end < bytes.len() => {
                return Err(Error::input(format!("the journal is damaged: {error}"))
                    .line(index + 1, 1)
                    .hint("move the run folder away and submit again"));
            }
            _ => return Ok((lines, good)),
        }
        good = end;
    }
    Ok((lines, good))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopping(journal: &mut Journal, times: u64) {
        for at in 0..times {
            journal.append(at, Entry::Stopping).unwrap();
        }
    }

    #[test]
    fn what_was_appended_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let (mut journal, lines) = Journal::open(&path).unwrap();
        assert!(lines.is_empty());
        stopping(&mut journal, 2);
        drop(journal);
        let (_, lines) = Journal::open(&path).unwrap();
        assert_eq!(lines.iter().map(|line| line.at).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_torn_tail_is_cut_off_at_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        stopping(&mut Journal::open(&path).unwrap().0, 3);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            let (lines, good) = parse(&whole[..length]).unwrap();
            assert_eq!(lines.len(), whole[..length].iter().filter(|byte| **byte == b'\n').count());
            std::fs::write(&path, &whole[..length]).unwrap();
            stopping(&mut Journal::open(&path).unwrap().0, 1);
            let (_, again) = Journal::open(&path).unwrap();
            assert_eq!(again.len(), lines.len() + 1, "cut at {length}, whole up to {good}");
        }
    }

    #[test]
    fn damage_before_the_tail_is_named_by_line() {
        let text = b"{\"at\":0,\"entry\":{\"is\":\"stopping\"}}\ngarbage\n{\"at\":1,\"entry\":{\"is\":\"stopping\"}}\n";
        let error = parse(text).unwrap_err();
        assert_eq!(error.place.line, Some(2));
    }

    #[test]
    fn only_one_launcher_drives_a_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let first = Journal::open(&path).unwrap();
        let refusal = Journal::open(&path).unwrap_err();
        assert_eq!(refusal.message, "another qlaunch drives this run");
        drop(first);
        assert!(Journal::open(&path).is_ok());
    }
}
