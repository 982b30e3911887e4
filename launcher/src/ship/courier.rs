//! Lets the worker bring models and data from the Hub, on the host where they are needed, and follows it there.
//!
//! On another host it goes on without us: a link that is lost costs nothing, and whoever asks again finds what has arrived.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use qlaunch_shared::protocol::{DownloadEvent, Snapshot};
use qlaunch_shared::{Error, ErrorKind, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::hub_id::HubId;
use crate::plan::quote;
use crate::transport::{Host, Transport};

/// Time between two looks at what it says.
const LOOK: Duration = Duration::from_millis(500);
/// Silence after which it counts as lost: it speaks once a second.
const SILENCE: Duration = Duration::from_secs(90);
/// How long a host may be unreachable before nobody waits any more.
const UNREACHABLE: Duration = Duration::from_secs(600);
/// How often it is started again.
const STARTS: u32 = 3;

/// Starts `$2 download …` in the folder `$1`, with the variables of `environment` and the token of `token`, both of which are
/// gone before it runs: no argument and no file holds them.
const START: &str = r#"
cd -- "$1" || exit 1
worker=$2
shift 2
if [ -e environment ]; then . ./environment; rm -f environment; fi
if [ -e token ]; then exec 3< token; rm -f token; set -- "$@" --token-file /dev/stdin; else exec 3< /dev/null; fi
: > events
setsid nohup "$worker" download "$@" <&3 > events 2> log &
"#;

/// Who brings things from the Hub to a host.
#[derive(Debug, Clone)]
pub struct Courier {
    /// The host.
    pub host: Host,
    /// The worker there.
    pub worker: PathBuf,
    /// Folder there for what is said meanwhile, and for headers.
    pub folder: PathBuf,
    /// Cache for what is new where no variable of the host names one; on this machine the usual one.
    pub into: Option<PathBuf>,
    /// Variables that the profile adds.
    pub environment: BTreeMap<String, String>,
    /// Who asks the Hub; none means the token of a login there.
    pub token: Option<String>,
}

impl Courier {
    /// Finds or brings a snapshot. With `headers` no weights are brought, only what a plan needs, into a folder of ours there.
    ///
    /// # Errors
    /// A Hub that refuses or is not reached from there, a host that stays silent.
    pub async fn bring(
        &self,
        id: &HubId,
        headers: bool,
        told: &mut dyn FnMut(&DownloadEvent),
    ) -> Result<Snapshot> {
        let mut arguments = id.arguments();
        arguments.extend(self.into.iter().map(|into| format!("--into={}", into.display())));
        if headers {
            let folder = self.folder.join(id.repository.replace('/', "--"));
            arguments.push(format!("--headers={}", folder.display()));
        }
        match &self.host {
            Host::Here(_) => self.here(&arguments, told).await,
            _ => {
                let mut starts = 0;
                loop {
                    starts += 1;
                    match self.there(&arguments, told).await {
                        Ok(Some(snapshot)) => return Ok(snapshot),
                        Ok(None) if starts < STARTS => {}
                        Ok(None) => {
                            let message = format!("the download of `{id}` ends without a word");
                            return Err(Error::new(ErrorKind::Unreachable, message)
                                .hint("the host may end long processes: give the same command again, it goes on there"));
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    /// As a child of this process, which ends with it.
    async fn here(&self, arguments: &[String], told: &mut dyn FnMut(&DownloadEvent)) -> Result<Snapshot> {
        let fault = |error: std::io::Error| Error::io("run the worker", &self.worker, &error);
        let mut command = Command::new(&self.worker);
        command.arg("download").args(arguments).arg(format!("--parent={}", std::process::id()));
        command.envs(&self.environment).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.kill_on_drop(true).spawn().map_err(fault)?;
        let mut lines = BufReader::new(child.stdout.take().ok_or_else(|| Error::bug("no output"))?).lines();
        while let Some(line) = lines.next_line().await.map_err(fault)? {
            if let Some(snapshot) = heard(line.as_bytes(), told)? {
                return Ok(snapshot);
            }
        }
        let status = child.wait().await.map_err(fault)?;
        Err(Error::bug(format!("the worker says nothing of the Hub ({status})")).at(&self.worker))
    }

    /// As a process of its own on the host; none if it stops speaking.
    async fn there(
        &self,
        arguments: &[String],
        told: &mut dyn FnMut(&DownloadEvent),
    ) -> Result<Option<Snapshot>> {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let folder = self.folder.join(format!("call-{}-{since}", std::process::id()));
        self.host.make_folder(&folder).await?;
        let lines = self.environment.iter().map(|(name, value)| format!("export {name}={}\n", quote(value)));
        self.host.write_private(&folder.join("environment"), lines.collect::<String>().as_bytes()).await?;
        if let Some(token) = &self.token {
            self.host.write_private(&folder.join("token"), token.as_bytes()).await?;
        }
        let place = [folder.display().to_string(), self.worker.display().to_string()];
        let words: Vec<&str> = place.iter().chain(arguments).map(String::as_str).collect();
        let started = self.host.shell(START, &words).await?;
        if started.code != Some(0) {
            let message = format!("the worker cannot be started: {}", started.stderr.trim());
            return Err(Error::input(message)
                .at(&folder)
                .hint("look at the workspace: `qlaunch cluster check NAME`"));
        }
        let found = self.follow(&folder.join("events"), told).await;
        // A folder that stays costs some bytes.
        drop(self.host.remove(&folder).await);
        found
    }

    async fn follow(&self, events: &Path, told: &mut dyn FnMut(&DownloadEvent)) -> Result<Option<Snapshot>> {
        let (mut from, mut rest) = (0, Vec::new());
        let (mut spoken, mut answered) = (Instant::now(), Instant::now());
        while spoken.elapsed() < SILENCE {
            tokio::time::sleep(LOOK).await;
            match self.host.read(events, from, 1 << 20).await {
                Ok(Some(bytes)) => {
                    answered = Instant::now();
                    if !bytes.is_empty() {
                        spoken = Instant::now();
                    }
                    from += bytes.len() as u64;
                    rest.extend(bytes);
                    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                        let line: Vec<u8> = rest.drain(..=end).collect();
                        if let Some(snapshot) = heard(&line, told)? {
                            return Ok(Some(snapshot));
                        }
                    }
                }
                Ok(None) => answered = Instant::now(),
                // The download goes on there; a link that is lost is no word about it.
                Err(error) if error.kind == ErrorKind::Unreachable && answered.elapsed() < UNREACHABLE => {
                    spoken = Instant::now();
                    tokio::time::sleep(LOOK * 4).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// What one line says: the end, good or bad, or how it goes.
fn heard(line: &[u8], told: &mut dyn FnMut(&DownloadEvent)) -> Result<Option<Snapshot>> {
    match serde_json::from_slice(line) {
        Ok(DownloadEvent::Found(snapshot)) => Ok(Some(snapshot)),
        Ok(DownloadEvent::Failed { error }) => Err(error),
        Ok(event) => {
            told(&event);
            Ok(None)
        }
        // A later worker may say more.
        Err(_) => Ok(None),
    }
}
