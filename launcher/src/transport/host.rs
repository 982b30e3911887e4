//! A host that is this machine or another one, decided while the program runs.

use std::path::Path;
use std::time::Duration;

use qlaunch_shared::Result;

use super::contract::{Chunk, CommandOutput, Transport, Wanted};
use super::fleet::{Fleet, Member};
use super::{Local, Ssh};

/// A host.
#[derive(Debug, Clone)]
pub enum Host {
    /// This machine.
    Here(Local),
    /// A machine behind SSH.
    Far(Ssh),
    /// One of several machines behind SSH.
    Member(Member),
    /// Several machines behind SSH that see the same files.
    Fleet(Fleet),
}

impl Host {
    /// Every host behind it; itself where it is one.
    pub fn each(&self) -> Vec<Self> {
        match self {
            Self::Fleet(fleet) => fleet.members().iter().cloned().map(Self::Member).collect(),
            one => vec![one.clone()],
        }
    }

    /// Its name, where it is one of several.
    pub fn name(&self) -> Option<&str> {
        if let Self::Member(member) = self { Some(member.name()) } else { None }
    }

    /// How long it is known not to answer; one that is alone is asked every time.
    pub fn silent_for(&self) -> Option<Duration> {
        if let Self::Member(member) = self { member.silent_for() } else { None }
    }
}

/// Calls the same method of whichever host it is.
macro_rules! either {
    ($host:expr, $name:ident ( $($argument:expr),* )) => {
        match $host {
            Host::Here(host) => host.$name($($argument),*).await,
            Host::Far(host) => host.$name($($argument),*).await,
            Host::Member(host) => host.$name($($argument),*).await,
            Host::Fleet(host) => host.$name($($argument),*).await,
        }
    };
}

impl Transport for Host {
    async fn read_many(&self, wanted: &[Wanted]) -> Result<Vec<Option<Chunk>>> {
        either!(self, read_many(wanted))
    }

    async fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        either!(self, write(path, bytes))
    }

    async fn write_private(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        either!(self, write_private(path, bytes))
    }

    async fn append(&self, path: &Path, size: u64, bytes: &[u8]) -> Result<u64> {
        either!(self, append(path, size, bytes))
    }

    async fn make_folder(&self, path: &Path) -> Result<()> {
        either!(self, make_folder(path))
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        either!(self, exists(path))
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        either!(self, rename(from, to))
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        either!(self, remove(path))
    }

    async fn shell_within(
        &self,
        deadline: Duration,
        script: &str,
        arguments: &[&str],
    ) -> Result<CommandOutput> {
        either!(self, shell_within(deadline, script, arguments))
    }
}
