//! Where a run's jobs are: the host, the folder of ours on it, and what is brought there before anything runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use qlaunch_shared::digest::sha256;
use qlaunch_shared::{Error, ErrorKind, Result};

use crate::config::{Kind, Settings, SshProfile, Surroundings};
use crate::transport::{Fleet, Host, Local, Ssh, Transport, Way, has_room_for_socket};

/// A host where jobs run, and the folder of ours on it.
#[derive(Debug, Clone)]
pub struct Site {
    /// The host.
    pub host: Host,
    /// Folder of ours there; none where runs lie in the same folder for launcher and jobs.
    pub workspace: Option<PathBuf>,
}

/// Prints the absolute path of `$1`, whose `~/` stands for the home folder, after making sure that it can be written.
const WORKSPACE: &str = r#"
case $1 in "~") path=$HOME;; "~/"*) path=$HOME/${1#"~/"};; *) path=$1;; esac
case $path in /*) ;; *) echo "it does not begin with / or ~/" >&2; exit 1;; esac
mkdir -p -- "$path" && cd -- "$path" && : > .writable.$$ && rm -f .writable.$$ && pwd -P
"#;

impl Site {
    /// Opens the way to a cluster; a host behind SSH is called.
    ///
    /// # Errors
    /// A host that does not answer or wants somebody to log in, a workspace that cannot be written.
    pub async fn open(settings: &Settings, around: &Surroundings) -> Result<Self> {
        let host = host(settings, around)?;
        let here = settings.profile.kind == Kind::Docker && settings.profile.ssh.is_none();
        if here || settings.profile.kind == Kind::Local {
            return Ok(Self { host, workspace: None });
        }
        let workspace = settings.profile.workspace.as_deref().unwrap_or("~/qlaunch");
        let output = host.shell(WORKSPACE, &[workspace]).await?;
        if output.code != Some(0) {
            let why = output.stderr.lines().last().unwrap_or("no reason given").trim().to_owned();
            return Err(Error::input(format!("the workspace `{workspace}` cannot be used: {why}"))
                .at(settings.origin("profile.workspace").unwrap_or_default())
                .key("workspace")
                .hint("set it to a folder that you can write and that all nodes see"));
        }
        let site = Self { host, workspace: Some(PathBuf::from(output.stdout.trim())) };
        site.check_shared(settings).await?;
        Ok(site)
    }

    /// Makes sure that all of several hosts see the workspace as one; hosts that do not answer are not asked.
    async fn check_shared(&self, settings: &Settings) -> Result<()> {
        let (Some(workspace), hosts) = (&self.workspace, self.host.each()) else { return Ok(()) };
        if hosts.len() < 2 {
            return Ok(());
        }
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let mark = workspace.join(format!(".seen-{}-{since}", std::process::id()));
        self.host.write(&mark, b"").await?;
        let mut blind = None;
        for host in &hosts {
            match host.exists(&mark).await {
                Ok(false) if blind.is_none() => blind = host.name().map(str::to_owned),
                Err(error) if error.kind != ErrorKind::Unreachable => return Err(error),
                _ => {}
            }
        }
        self.host.remove(&mark).await?;
        let Some(name) = blind else { return Ok(()) };
        let message =
            format!("`{name}` does not see the workspace of the other hosts: {}", workspace.display());
        Err(Error::input(message)
            .at(settings.origin("profile.workspace").unwrap_or_default())
            .key("workspace")
            .hint("set it to a folder that all hosts mount, or make a cluster of each host"))
    }

    /// The folder of the store where jobs find what others have made.
    pub fn store(&self, settings: &Settings) -> PathBuf {
        match &self.workspace {
            None => Self::local_store(settings),
            Some(workspace) => workspace.join(settings.profile.store.as_deref().unwrap_or("store")),
        }
    }

    /// The folder of the store of runs on this machine.
    pub fn local_store(settings: &Settings) -> PathBuf {
        settings.runs.join(settings.profile.store.as_deref().unwrap_or(".store"))
    }

    /// The folder of a run where its jobs are: its own folder here, or one in the workspace.
    pub fn run_folder(&self, here: &Path, name: &str) -> PathBuf {
        match &self.workspace {
            None => here.to_owned(),
            Some(workspace) => workspace.join("runs").join(name),
        }
    }
}

/// The host of a cluster, not called yet.
///
/// # Errors
/// No home folder for the socket of a login.
pub fn host(settings: &Settings, around: &Surroundings) -> Result<Host> {
    let Some(ssh) = &settings.profile.ssh else {
        return Ok(Host::Here(Local));
    };
    let config = ssh.config.as_ref().map(|config| around.project.join(config));
    let cluster = settings.cluster.clone();
    let to = |name: &str| {
        let profile = SshProfile { config: config.clone(), ..ssh.alone(name) };
        let login = login_socket(&settings.cluster, (ssh, name), around)?;
        Ok((name.to_owned(), Ssh::to(Way { cluster: cluster.clone(), profile, login })))
    };
    if ssh.others.is_empty() {
        return Ok(Host::Far(to(&ssh.host)?.1));
    }
    let hosts: Vec<(String, Ssh)> = ssh.hosts().map(to).collect::<Result<_>>()?;
    Ok(Host::Fleet(Fleet::of(hosts, settings.profile.process.patience())))
}

/// The socket of the connection to a host that a person opened by `qlaunch cluster login`.
///
/// # Errors
/// No home folder.
pub fn login_socket(
    cluster: &str,
    (ssh, host): (&SshProfile, &str),
    around: &Surroundings,
) -> Result<PathBuf> {
    let user = around.user.as_ref().ok_or_else(|| {
        Error::new(ErrorKind::Input, "there is no home folder for the socket of a login").hint("set HOME")
    })?;
    // Each of several hosts has one of its own.
    let name = if ssh.others.is_empty() { cluster.to_owned() } else { format!("{cluster}@{host}") };
    let (folder, short) = (user.join("logins"), sha256(&name));
    let socket = folder.join(name);
    Ok(if has_room_for_socket(&socket) { socket } else { folder.join(short.get(..16).unwrap_or_default()) })
}

/// Runs the asynchronous edge on this thread.
///
/// # Errors
/// What the work returns, or an event loop that cannot be started.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::bug(format!("cannot start the event loop: {error}")))?;
    runtime.block_on(work)
}

/// How often running jobs are looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Time between two readings of what workers say.
    pub glance: Duration,
    /// Shortest time between two questions to the scheduler: while things change.
    pub least: Duration,
    /// Longest time between two questions: while nothing changes.
    pub most: Duration,
}

impl Pace {
    /// The pace of a cluster.
    pub fn of(settings: &Settings) -> Self {
        let tick = Duration::from_millis(100);
        let profile = &settings.profile;
        if profile.kind == Kind::Local {
            return Self { glance: tick, least: tick, most: tick };
        }
        let most =
            Duration::try_from_secs_f64(profile.poll_seconds.unwrap_or(30.0)).unwrap_or(tick).max(tick);
        Self { glance: Duration::from_secs(2).min(most), least: Duration::from_secs(2).min(most), most }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_of_a_login_has_a_short_name_where_the_clusters_is_too_long_for_ssh() {
        let around =
            Surroundings { user: Some("/home/me/.config/qlaunch".into()), ..Surroundings::default() };
        let ssh: SshProfile = serde_json::from_value(serde_json::json!({ "host": "login1" })).unwrap();
        let socket = |cluster: &str| login_socket(cluster, (&ssh, "login1"), &around).unwrap();
        assert_eq!(socket("hpc"), Path::new("/home/me/.config/qlaunch/logins/hpc"));
        let (long, other) = ("a".repeat(80), "a".repeat(81));
        assert!(has_room_for_socket(&socket(&long)), "{}", socket(&long).display());
        assert_eq!(socket(&long), socket(&long));
        assert_ne!(socket(&long), socket(&other));
    }
}
