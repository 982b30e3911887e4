//! A connection to a host over the system's OpenSSH: made when it is needed, made again when it was lost.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openssh::{ControlPersist, KnownHosts, Session, SessionBuilder, Stdio};
use qlaunch_shared::{Error, ErrorKind, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;

use super::frames::{Answer, EVALUATE, answer, for_any_shell};
use super::refusal::explain;
use crate::config::SshProfile;

/// Longest that making a connection may take, jump hosts included.
const CONNECT: Duration = Duration::from_secs(30);
/// A silent link is asked this often whether it is there, and given up after three questions.
const ALIVE: Duration = Duration::from_secs(15);

/// Longest path of a socket for ssh: an address has room for 107 bytes, and ssh begins with a name that is longer by 17.
const SOCKET: usize = 107 - 17;
/// What a connection of ours puts behind the folder of temporary files.
const CONNECTION: &str = "/.ssh-connectionXXXXXX/master";

/// Whether ssh can open a socket there.
pub fn has_room_for_socket(path: &Path) -> bool {
    path.as_os_str().len() <= SOCKET
}

/// Where the sockets of connections go: the folder of temporary files, unless it lies too deep, as on clusters it may.
fn sockets(folder: PathBuf) -> PathBuf {
    let longest = folder.as_os_str().len() + CONNECTION.len();
    if longest <= SOCKET { folder } else { PathBuf::from("/tmp") }
}

/// Seconds without a command after which a connection closes itself.
const IDLE: usize = 300;

/// The way to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Name of the cluster, for errors.
    pub cluster: String,
    /// Host, user and the like.
    pub profile: SshProfile,
    /// Socket of the connection that `qlaunch cluster login` opens.
    pub login: PathBuf,
}

/// A host over SSH. Clones share one connection.
#[derive(Debug, Clone)]
pub struct Ssh {
    pub(super) way: Arc<Way>,
    session: Arc<Mutex<Option<Arc<Session>>>>,
    nonce: Arc<str>,
}

impl Ssh {
    /// A host that has not been called yet.
    pub fn to(way: Way) -> Self {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let nonce = format!("{:x}-{since:x}", std::process::id()).into();
        Self { way: Arc::new(way), session: Arc::default(), nonce }
    }

    /// The connection, made if there is none.
    async fn session(&self) -> Result<Arc<Session>> {
        let mut slot = self.session.lock().await;
        if let Some(session) = slot.as_ref() {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(self.connect().await?);
        *slot = Some(Arc::clone(&session));
        Ok(session)
    }

    async fn connect(&self) -> Result<Session> {
        let way = &self.way;
        if way.login.exists() {
            let session = Session::resume_mux(way.login.clone().into_boxed_path(), None);
            match session.check().await {
                Ok(()) => return Ok(session),
                // The connection that a person opened is over; where no person is needed, another one will do.
                Err(_) => drop(session.detach()),
            }
        }
        let mut builder = SessionBuilder::default();
        // As OpenSSH's own default where nobody can be asked: a host that is not known is refused.
        builder.known_hosts_check(KnownHosts::Strict).server_alive_interval(ALIVE).connect_timeout(CONNECT);
        builder.control_directory(sockets(std::env::temp_dir()));
        // A launcher that is killed cannot close its connection.
        if let Some(seconds) = NonZeroUsize::new(IDLE) {
            builder.control_persist(ControlPersist::IdleFor(seconds));
        }
        if let Some(user) = &way.profile.user {
            builder.user(user.clone());
        }
        if let Some(port) = way.profile.port {
            builder.port(port);
        }
        if let Some(identity) = &way.profile.identity {
            builder.keyfile(identity);
        }
        if let Some(config) = &way.profile.config {
            builder.config_file(config);
        }
        if !way.profile.jump.is_empty() {
            builder.jump_hosts(&way.profile.jump);
        }
        builder.connect_mux(&way.profile.host).await.map_err(|error| explain(&error, way))
    }

    /// Forgets a connection that turned out to be dead.
    async fn forget(&self, dead: &Arc<Session>) {
        let mut slot = self.session.lock().await;
        if slot.as_ref().is_some_and(|session| Arc::ptr_eq(session, dead)) {
            *slot = None;
        }
    }

    /// Runs a script on the host and returns what it printed to stdout and stderr.
    ///
    /// # Errors
    /// No connection, or no whole answer: the script may or may not have run then.
    pub(super) async fn ask(&self, question: Question<'_>) -> Result<(Answer, String)> {
        let session = self.session().await?;
        let answered = tokio::time::timeout(question.deadline, self.ask_session(&session, &question)).await;
        let lost = |why: String| {
            Error::new(ErrorKind::Unreachable, format!("the link to `{}` was lost: {why}", self.way.cluster))
        };
        let result = match answered {
            Ok(Ok((stdout, stderr))) => match answer(&stdout, &self.nonce) {
                Some(answer) => return Ok((answer, stderr)),
                None => Err(lost(format!("the answer is not whole {}", stderr.trim()).trim().to_owned())),
            },
            Ok(Err(error)) => Err(lost(error)),
            Err(_) => Err(lost(format!("no answer within {} seconds", question.deadline.as_secs()))),
        };
        self.forget(&session).await;
        result
    }

    async fn ask_session(
        &self,
        session: &Session,
        question: &Question<'_>,
    ) -> Result<(Vec<u8>, String), String> {
        let words = |error: openssh::Error| error.to_string();
        let mut command = session.command("/bin/sh");
        let program = for_any_shell(&self.nonce, question.script, question.arguments);
        command.args(["-c", EVALUATE, "qlaunch", &program]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().await.map_err(words)?;
        let (mut input, output, errors) =
            (child.stdin().take(), child.stdout().take(), child.stderr().take());
        let feed = async {
            if let Some(input) = input.as_mut() {
                // A script that does not read everything says so by its exit code.
                drop(input.write_all(question.input).await);
            }
            drop(input);
        };
        let hear = async {
            let mut bytes = Vec::new();
            if let Some(mut output) = output {
                drop(output.read_to_end(&mut bytes).await);
            }
            bytes
        };
        let complain = async {
            let mut bytes = Vec::new();
            if let Some(mut errors) = errors {
                drop(errors.read_to_end(&mut bytes).await);
            }
            bytes
        };
        let ((), stdout, stderr) = tokio::join!(feed, hear, complain);
        // Whether the answer is whole is told by its marks; exit codes of ssh mean several things.
        drop(child.wait().await);
        Ok((stdout, String::from_utf8_lossy(&stderr).into_owned()))
    }
}

/// A script to run on a host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub deadline: Duration,
    pub script: &'a str,
    pub arguments: &'a [&'a str],
    pub input: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_folder_for_temporary_files_holds_no_socket() {
        assert_eq!(sockets("/scratch/me".into()), Path::new("/scratch/me"));
        let deep = format!("/scratch/{}", "x".repeat(SOCKET - CONNECTION.len() - "/scratch/".len()));
        assert_eq!(sockets(deep.clone().into()), Path::new(&deep), "it just fits");
        assert_eq!(sockets((deep + "x").into()), Path::new("/tmp"));
    }
}
