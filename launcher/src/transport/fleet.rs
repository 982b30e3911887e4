//! Several hosts that see one workspace: files go through whichever answers, and one that is silent is asked again behind
//! everybody's back, so that nobody waits for it.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qlaunch_shared::{Error, ErrorKind, Result};
use tokio::task::JoinHandle;

use super::contract::{Chunk, CommandOutput, Transport, Wanted};
use super::ssh::Ssh;

/// Longest that one try to reach a silent host may take, jump hosts included.
const TRY: Duration = Duration::from_secs(45);
/// Shortest and longest time between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// One of several hosts. Clones share what is known of it.
#[derive(Debug, Clone)]
pub struct Member {
    name: Arc<str>,
    ssh: Ssh,
    /// Time that it has for an answer before it counts as silent.
    patience: Duration,
    silence: Arc<Mutex<Option<Silence>>>,
}

/// A host that does not answer.
#[derive(Debug)]
struct Silence {
    since: Instant,
    why: Error,
    /// Asks it again and again; gone with the event loop that it was started in.
    probe: Option<JoinHandle<()>>,
}

impl Member {
    fn new(name: &str, ssh: Ssh, patience: Duration) -> Self {
        Self { name: name.into(), ssh, patience, silence: Arc::default() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long it has not answered; none if it does.
    pub fn silent_for(&self) -> Option<Duration> {
        self.known().as_ref().map(|silence| silence.since.elapsed())
    }

    fn known(&self) -> MutexGuard<'_, Option<Silence>> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something there, unless it is known to be silent.
    async fn ask<T>(&self, deadline: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        if let Some(silence) = self.known().as_mut() {
            if silence.probe.as_ref().is_none_or(JoinHandle::is_finished) {
                silence.probe = Some(self.probe());
            }
            return Err(silence.why.clone());
        }
        let answer = tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| {
            let message = format!("no answer within {} seconds", deadline.as_secs());
            Err(Error::new(ErrorKind::Unreachable, message))
        });
        answer.map_err(|error| {
            let error = error.context(format!("host `{}`", self.name));
            if error.kind == ErrorKind::Unreachable {
                let probe = Some(self.probe());
                *self.known() = Some(Silence { since: Instant::now(), why: error.clone(), probe });
            }
            error
        })
    }

    /// Asks it again and again until it answers.
    fn probe(&self) -> JoinHandle<()> {
        let member = self.clone();
        tokio::spawn(async move {
            let mut pause = PAUSES.0;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
                let asked = member.ssh.shell_within(TRY, ":", &[]);
                // Within its own deadline, so that a connection that is dead is forgotten.
                let answered = tokio::time::timeout(TRY * 2, asked).await;
                // Whatever it says, it speaks again.
                if answered.is_ok_and(|answer| {
                    answer.map_or_else(|error| error.kind != ErrorKind::Unreachable, |_| true)
                }) {
                    *member.known() = None;
                    return;
                }
            }
        })
    }
}

/// Several hosts that see the same files under the same paths.
#[derive(Debug, Clone)]
pub struct Fleet {
    members: Vec<Member>,
    /// The one that answered last.
    preferred: Arc<AtomicUsize>,
}

impl Fleet {
    /// Hosts by name, each of which has so long for an answer.
    pub fn of(hosts: impl IntoIterator<Item = (String, Ssh)>, patience: Duration) -> Self {
        let member = |(name, ssh): (String, Ssh)| Member::new(&name, ssh, patience);
        Self { members: hosts.into_iter().map(member).collect(), preferred: Arc::default() }
    }

    /// Its hosts.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The hosts, the one that answered last before all others.
    fn in_order(&self) -> impl Iterator<Item = (usize, &Member)> {
        let first = self.preferred.load(Ordering::Relaxed);
        let (before, from) = self.members.split_at(first.min(self.members.len()));
        let from = from.iter().enumerate().map(move |(index, member)| (first + index, member));
        from.chain(before.iter().enumerate())
    }
}

/// Calls a method of one host after the other until one answers. What the last silent one may have begun is done again:
/// everything that goes through a fleet can be done twice.
macro_rules! through {
    ($fleet:expr, $name:ident ( $($argument:expr),* )) => {{
        let mut refusal = Error::bug("there is no host");
        for (index, member) in $fleet.in_order() {
            match member.$name($($argument),*).await {
                Err(error) if error.kind == ErrorKind::Unreachable => refusal = error,
                answer => {
                    $fleet.preferred.store(index, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(refusal)
    }};
}

/// Both kinds have the same methods; a member's go to its host, a fleet's to its members.
macro_rules! transports {
    ($($name:ident ( $($argument:ident : $kind:ty),* ) -> $answer:ty;)*) => {
        impl Transport for Member {
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$answer> {
                self.ask(self.patience, self.ssh.$name($($argument),*)).await
            })*

            async fn append(&self, path: &Path, size: u64, bytes: &[u8]) -> Result<u64> {
                // A piece of a large file may take long over a slow link.
                self.ask(self.patience * 20, self.ssh.append(path, size, bytes)).await
            }

            async fn shell_within(&self, deadline: Duration, script: &str, arguments: &[&str]) -> Result<CommandOutput> {
                self.ask(deadline + self.patience, self.ssh.shell_within(deadline, script, arguments)).await
            }
        }

        impl Transport for Fleet {
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$answer> {
                through!(self, $name($($argument),*))
            })*

            async fn append(&self, path: &Path, size: u64, bytes: &[u8]) -> Result<u64> {
                through!(self, append(path, size, bytes))
            }

            async fn shell_within(&self, deadline: Duration, script: &str, arguments: &[&str]) -> Result<CommandOutput> {
                through!(self, shell_within(deadline, script, arguments))
            }
        }
    };
}

transports! {
    read_many(wanted: &[Wanted]) -> Vec<Option<Chunk>>;
    write(path: &Path, bytes: &[u8]) -> ();
    write_private(path: &Path, bytes: &[u8]) -> ();
    make_folder(path: &Path) -> ();
    exists(path: &Path) -> bool;
    rename(from: &Path, to: &Path) -> ();
    remove(path: &Path) -> ();
}
