//! A rank's place among the others, and how long and how much it bears with them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use qlaunch_shared::{Error, Result};
use serde::{Deserialize, Serialize};

/// Where ranks meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rendezvous {
    /// `HOST:PORT`, where rank 0 listens.
    Address(String),
    /// A file that rank 0 writes its address into, on a disk that all ranks see.
    File(PathBuf),
}

impl std::str::FromStr for Rendezvous {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(Self::File(path.into()));
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Address(text.to_owned()))
            }
            _ => Err(Error::usage(format!("`{text}` is no place to meet"))
                .hint("give `HOST:PORT` of rank 0, or `file:PATH` on a disk that all ranks see")),
        }
    }
}

/// One rank's place.
#[derive(Debug, Clone)]
pub struct Seat {
    /// Which rank, from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// Where they meet.
    pub rendezvous: Rendezvous,
    /// What only ranks of this run know.
    pub token: Vec<u8>,
    /// How long and how much this rank bears.
    pub limits: Limits,
}

/// How long and how much a rank bears with the others.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Until all ranks have met.
    pub meeting: Duration,
    /// For one side of a handshake.
    pub handshake: Duration,
    /// Between two signs of life of this rank.
    pub pulse: Duration,
    /// Without a sign of life of another one, before it is taken for dead.
    pub silence: Duration,
    /// Bytes of one message.
    pub message: u64,
    /// Bytes on their way to, or from, one rank; a single message may be larger.
    pub buffer: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            meeting: Duration::from_secs(180),
            handshake: Duration::from_secs(10),
            pulse: Duration::from_secs(1),
            silence: Duration::from_secs(15),
            message: 4 << 30,
            buffer: 64 << 20,
        }
    }
}

/// Who a rank is, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Peer {
    pub(super) rank: usize,
    pub(super) host: String,
    pub(super) pid: u32,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} (process {} on {})", self.rank, self.pid, self.host)
    }
}

impl Seat {
    /// This process in this place.
    pub(super) fn own(&self) -> Peer {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Peer { rank: self.rank, host, pid: std::process::id() }
    }
}

/// Reads a token's file; who else may read it is not checked where a file system has no owners.
///
/// # Errors
/// The file cannot be read, is too short to be secret, or others may read it.
pub fn read_token(path: &Path) -> Result<Vec<u8>> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |e: std::io::Error| Error::io("read the token of the ranks", path, &e);
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Error::input("the token of the ranks can be read by others")
            .at(path)
            .hint(format!("`chmod 600 {}`", path.display())));
    }
    let mut token = std::fs::read(path).map_err(failed)?;
    let kept = token.trim_ascii_end().len();
    token.truncate(kept);
    if token.len() < 16 {
        return Err(Error::input("the token of the ranks is shorter than 16 bytes")
            .at(path)
            .hint("write 32 random bytes as hex into it, with mode 600"));
    }
    Ok(token)
}
