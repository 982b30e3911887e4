//! Jobs as processes of a host, each leading a session of its own, so that they outlive the launcher and its terminal.

use qlaunch_shared::{Error, ErrorKind, Result};

use super::contract::{Backend, Handed, Poll, Ticket};
use super::ending::ending;
use crate::journal::Handle;
use crate::transport::Transport;

/// Starts `job.sh` detached and prints its process id. The token in the environment is what [`Backend::find`] looks
/// for. `setsid` does not fork here, because a background process of a script leads no process group.
const START: &str = r#"
mkdir -p "$1/attempts/$2" && cd "$1" || exit 1
QLAUNCH_ATTEMPT="$3" setsid sh job.sh "$2" > "attempts/$2/log" 2>&1 < /dev/null &
echo $!
"#;

/// Prints the process ids whose environment has the token; unreadable processes of other users are not ours.
const FIND: &str = r#"
for file in $(grep -lzxF "QLAUNCH_ATTEMPT=$1" /proc/[0-9]*/environ 2>/dev/null); do
  file=${file#/proc/}; echo "${file%/environ}"
done
"#;

/// The process backend of one host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Processes<T> {
    transport: T,
}

/// What `/proc/PID/stat` says.
struct Stat {
    state: char,
    group: u32,
    started: u64,
}

impl<T: Transport> Processes<T> {
    /// Runs jobs over a transport.
    pub const fn over(transport: T) -> Self {
        Self { transport }
    }

    async fn stat(&self, pid: u32) -> Result<Option<Stat>> {
        let path = format!("/proc/{pid}/stat");
        let bytes = self.transport.read(path.as_ref(), 0, 4096).await?;
        Ok(bytes.and_then(|bytes| stat(&String::from_utf8_lossy(&bytes))))
    }

    async fn boot(&self) -> Result<String> {
        let path = "/proc/sys/kernel/random/boot_id";
        let bytes = self.transport.read(path.as_ref(), 0, 64).await?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    async fn handle(&self, pid: u32) -> Result<Option<Handle>> {
        let boot = self.boot().await?;
        let stat = self.stat(pid).await?;
        Ok(stat.map(|stat| Handle::Process { pid, started: stat.started, boot }))
    }

    /// Whether the very process still runs: same boot, same start, not a zombie.
    async fn alive(&self, handle: &Handle) -> Result<bool> {
        let Handle::Process { pid, started, boot } = handle else { return Ok(false) };
        let same = self.stat(*pid).await?.is_some_and(|stat| stat.started == *started && stat.state != 'Z');
        Ok(same && self.boot().await? == *boot)
    }

    async fn signal(&self, handle: &Handle, signal: &str) -> Result<()> {
        let Handle::Process { pid, .. } = handle else { return Ok(()) };
        if self.alive(handle).await? {
            // To the whole group: the script waits for the worker, the worker stops.
            self.transport.shell("kill -s \"$1\" -- \"-$2\"", &[signal, &pid.to_string()]).await?;
        }
        Ok(())
    }
}

impl<T: Transport> Backend for Processes<T> {
    // A process cannot be told to wait for another one: the engine hands candidates over when their baselines are done.
    async fn submit(&self, ticket: &Ticket, _after: &[Handle]) -> Result<Handed> {
        let folder = ticket.folder.display().to_string();
        let attempt = ticket.attempt.to_string();
        let output = self.transport.shell(START, &[&folder, &attempt, &ticket.token]).await?;
        let refused = |why: &str| Error::new(ErrorKind::Refused, format!("the job did not start: {why}"));
        let pid = output.stdout.trim().parse::<u32>().ok().filter(|_| output.code == Some(0));
        let pid = pid.ok_or_else(|| refused(output.stderr.trim()).at(&ticket.folder))?;
        match self.handle(pid).await? {
            Some(handle) => Ok(Handed::Taken(handle)),
            // It is over already; a handle that matches no process makes the next poll read how it ended.
            None => Ok(Handed::Taken(Handle::Process { pid, started: 0, boot: self.boot().await? })),
        }
    }

    async fn find(&self, ticket: &Ticket) -> Result<Option<Handle>> {
        let output = self.transport.shell(FIND, &[&ticket.token]).await?;
        for pid in output.stdout.lines().filter_map(|line| line.trim().parse::<u32>().ok()) {
            // The script leads the group; the worker below it has the same environment.
            if self.stat(pid).await?.is_some_and(|stat| stat.group == pid) {
                return self.handle(pid).await;
            }
        }
        Ok(None)
    }

    async fn poll(&self, asked: &[(Ticket, Handle)]) -> Result<Vec<Poll>> {
        let mut polls = Vec::with_capacity(asked.len());
        for (ticket, handle) in asked {
            polls.push(match self.alive(handle).await? {
                true => Poll::Running { restart: 0, waiting: None },
                // The witnesses are asked after the process is known to be gone, so that they have said everything.
                false => Poll::Ended { restart: 0, ending: ending(&self.transport, ticket).await? },
            });
        }
        Ok(polls)
    }

    async fn cancel(&self, _ticket: &Ticket, handle: &Handle) -> Result<()> {
        self.signal(handle, "TERM").await
    }

    async fn kill(&self, _ticket: &Ticket, handle: &Handle) -> Result<()> {
        self.signal(handle, "KILL").await
    }
}

/// Reads a stat line. The command in parentheses may hold anything, so fields are counted from its end.
fn stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        group: fields.get(2)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
