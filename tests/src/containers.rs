//! A real Docker daemon that `tests/docker/up.sh` started: profiles that use it, and the faults that befall it.

use std::path::PathBuf;
use std::process::Command;

use crate::cluster::Project;
use crate::places::existing;
use crate::programs::{Call, finish};

/// The daemon that this machine runs for tests.
#[derive(Debug, Clone)]
pub struct Daemon {
    /// Folder of its state.
    pub folder: PathBuf,
}

impl Daemon {
    /// The daemon whose `env.sh` was sourced.
    pub fn running() -> Self {
        let folder = std::env::var("QLAUNCH_TEST_DOCKER")
            .unwrap_or_else(|_| panic!("QLAUNCH_TEST_DOCKER is not set; run tests/docker/run.sh"));
        Self { folder: folder.into() }
    }

    /// Its address.
    pub fn address(&self) -> String {
        format!("unix://{}/docker.sock", self.folder.display())
    }

    /// A profile for it; `docker` is added to its table of that name.
    pub fn profile(&self, docker: &str) -> String {
        format!("kind = \"docker\"\n[docker]\naddress = \"{}\"\n{docker}", self.address())
    }

    /// Runs a shell line with the daemon's address; what it prints.
    pub fn root(&self, line: &str) -> String {
        let mut command = Command::new("bash");
        command.args(["-c", line]).env("DOCKER_HOST", self.address()).env("state", &self.folder);
        let output = command.output().expect("bash runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// `qlaunch` in a project that is handed to a user whose podman runs without root.
    pub fn without_root(&self, project: &Project, arguments: &[&str]) -> Call {
        let user = std::env::var("QLAUNCH_TEST_USER").expect("a user; run tests/docker/run.sh");
        let rootless = self.folder.join("rootless");
        self.root(&format!("chown -R {user} {}", project.path("").display()));
        let qlaunch = project.command(arguments);
        let mut command = Command::new("runuser");
        command.args(["-u", &user, "--"]).arg(qlaunch.get_program()).args(qlaunch.get_args());
        command.env_clear().current_dir(project.path(""));
        command.envs(qlaunch.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("XDG_RUNTIME_DIR", rootless.join("run"));
        command.env("CONTAINERS_STORAGE_CONF", rootless.join("storage.conf"));
        finish(command)
    }

    /// Kills it without a word.
    pub fn kill(&self) {
        self.root("kill -9 $(cat $state/docker.pid); while kill -0 $(cat $state/docker.pid) 2>/dev/null && ! grep -q '^State:.Z' /proc/$(cat $state/docker.pid)/status; do sleep 0.05; done");
    }

    /// Starts it again, as one that keeps its containers when it dies, or as one that takes them along.
    pub fn start(&self, keeps: bool) {
        let mut command = Command::new(existing("tests/docker/up.sh"));
        command.arg(&self.folder).env("LIVE", if keeps { "1" } else { "0" });
        let output = command.output().expect("up.sh runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Names of all containers, running or not, that are qlaunch's.
    pub fn containers(&self) -> Vec<String> {
        let names = self.root("docker ps -a --filter label=qlaunch.attempt --format '{{.Names}}'");
        names.lines().map(str::to_owned).collect()
    }

    /// How often each container was made since a moment (seconds since the epoch).
    pub fn made_since(&self, since: &str) -> Vec<(String, usize)> {
        let line = format!(
            "docker events --since {since} --until $(date +%s) --filter event=create --filter label=qlaunch.attempt \
             --format '{{{{.Actor.Attributes.name}}}}' | sort | uniq -c"
        );
        let row = |line: &str| {
            let (count, name) = line.trim().split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        };
        self.root(&line).lines().filter_map(row).collect()
    }
}
