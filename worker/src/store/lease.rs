//! Leases: who is making an artifact, so that others wait instead of making it too.
//!
//! A lease is a file that its holder rewrites now and then. Whoever waits looks whether the file changes, by a clock of his
//! own that never jumps; a lease that does not change for long has no holder any more and is taken over. Two holders at once
//! do no harm: artifacts of one key are the same whoever makes them.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use qlaunch_shared::{Error, Result};

use super::draft::unique;
use super::open::host;

/// How often a holder says that it lives, and after how long a silence it is taken for dead.
#[derive(Debug, Clone, Copy)]
pub struct LeaseTimes {
    /// Between two heartbeats.
    pub beat: Duration,
    /// Silence after which a lease is taken over.
    pub silence: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { beat: Duration::from_secs(5), silence: Duration::from_secs(60) }
    }
}

/// What became of a claim.
#[derive(Debug)]
pub enum Claim {
    /// It is ours.
    Held(Lease),
    /// Somebody else makes the artifact.
    Taken(Watch),
}

/// A lease that is held; dropping it gives it back.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    owner: String,
    stop: Option<Sender<()>>,
    beats: Option<JoinHandle<()>>,
}

/// Somebody else's lease under watch.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    times: LeaseTimes,
    seen: Vec<u8>,
    since: Instant,
}

impl Lease {
    /// Tries to take a lease.
    pub(super) fn claim(path: &Path, times: LeaseTimes) -> Result<Claim> {
        let owner = unique();
        match fs::OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(mut file) => {
                let text = format!("{owner} 0\n");
                file.write_all(text.as_bytes()).map_err(|error| Error::io("take a lease", path, &error))?;
                Ok(Claim::Held(Self::hold(path, owner, times)))
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let seen = fs::read(path).unwrap_or_default();
                Ok(Claim::Taken(Watch { path: path.to_owned(), times, seen, since: Instant::now() }))
            }
            Err(error) => Err(Error::io("take a lease", path, &error)),
        }
    }

    fn hold(path: &Path, owner: String, times: LeaseTimes) -> Self {
        let (stop, stopped) = mpsc::channel();
        let (file, name) = (path.to_owned(), owner.clone());
        let beats = std::thread::spawn(move || {
            let mut count = 0u64;
            while stopped.recv_timeout(times.beat) == Err(RecvTimeoutError::Timeout) {
                count += 1;
                // A lease that was taken over is not ours to write any more. A beat that cannot be written is made up
                // for by the next one.
                if !is_owned(&file, &name) {
                    return;
                }
                let _ = fs::write(&file, format!("{name} {count}\n"));
            }
        });
        Self { path: path.to_owned(), owner, stop: Some(stop), beats: Some(beats) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(beats) = self.beats.take() {
            // A heartbeat does nothing that could panic; were it to, there is still nothing to do about it.
            let _ = beats.join();
        }
        if is_owned(&self.path, &self.owner) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_owned(path: &Path, owner: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.split(' ').next() == Some(owner))
}

/// Whether a holder was a process of this host that is there no more: nobody need wait for its silence. Of processes that
/// cannot be seen from here, in containers under this host's name, the worst that comes of it is work done twice.
fn is_dead(lease: &[u8]) -> bool {
    let text = String::from_utf8_lossy(lease);
    let mut parts = text.split(' ').next().unwrap_or_default().rsplitn(4, '-');
    let (_count, _moment) = (parts.next(), parts.next());
    let (Some(pid), Some(own)) = (parts.next(), parts.next()) else { return false };
    own == host() && pid.parse::<u32>().is_ok_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

impl Watch {
    /// Whether the holder has gone: the lease was given back, or its holder is silent for too long and it is taken away.
    ///
    /// # Errors
    /// The lease of a dead holder cannot be taken away.
    pub fn is_over(&mut self) -> Result<bool> {
        let now = match fs::read(&self.path) {
            Ok(now) => now,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(Error::io("watch a lease", &self.path, &error)),
        };
        if now != self.seen {
            (self.seen, self.since) = (now, Instant::now());
            return Ok(false);
        }
        if self.since.elapsed() < self.times.silence && !is_dead(&now) {
            return Ok(false);
        }
        // Renamed first, so that of several who wait only one takes it, and it is the one that was seen.
        let taken = self.path.with_extension(format!("over-{}", unique()));
        match fs::rename(&self.path, &taken) {
            Ok(()) => {
                let is_same = fs::read(&taken).is_ok_and(|text| text == self.seen);
                if is_same {
                    let _ = fs::remove_file(&taken);
                } else {
                    // It came alive in between: give it back where nobody has taken a new one.
                    let _ = fs::hard_link(&taken, &self.path);
                    let _ = fs::remove_file(&taken);
                }
                Ok(is_same)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(Error::io("take over a lease", &self.path, &error)),
        }
    }
}
