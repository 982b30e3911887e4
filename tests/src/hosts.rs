//! Real hosts without a scheduler that `tests/cluster/hosts-up.sh` started: profiles for them, and the faults that befall them.

use std::path::PathBuf;
use std::process::Command;

/// The hosts that this machine runs.
#[derive(Debug, Clone)]
pub struct Hosts {
    /// Folder of their state.
    pub folder: PathBuf,
}

impl Hosts {
    /// The hosts whose `env.sh` was sourced.
    pub fn running() -> Self {
        let folder = std::env::var("QLAUNCH_TEST_HOSTS");
        Self { folder: folder.expect("QLAUNCH_TEST_HOSTS is not set; run tests/cluster/run.sh").into() }
    }

    /// A profile of both hosts, with further tables.
    pub fn profile(&self, workspace: &str, more: &str) -> String {
        format!(
            "kind = \"ssh\"\nworker_build = \"host\"\npoll_seconds = 1\nworkspace = \"{workspace}\"\n\
             [ssh]\nhost = \"h1\"\nothers = [\"h2\"]\nconfig = \"{}\"\n[process]\nlost_seconds = 5\n{more}",
            self.folder.join("config").display()
        )
    }

    /// Cuts a host off.
    pub fn cut(&self, host: &str) {
        root(&format!("ip link set qlaunch-{host} down"));
    }

    /// Lets a host take part again.
    pub fn join(&self, host: &str) {
        root(&format!("ip link set qlaunch-{host} up"));
    }

    /// Runs a shell line as root on a host; what it prints.
    pub fn on(&self, host: &str, line: &str) -> String {
        let pid = std::fs::read_to_string(self.folder.join(host).join("pid")).expect("a running host");
        // The first process of the host is a child of the one that made it.
        root(&format!("nsenter --all -t $(cat /proc/{0}/task/{0}/children) bash -c '{line}'", pid.trim()))
    }

    /// How many scripts of jobs run on a host.
    pub fn jobs(&self, host: &str) -> usize {
        self.on(host, "pgrep -cf ^sh.job.sh").parse().unwrap_or(0)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in ["h1", "h2"] {
            self.join(host);
            // What a failed test leaves would hold their CPUs.
            self.on(host, "pkill -KILL -f job.sh; pkill -KILL -f qlaunch-worker");
        }
    }
}

fn root(line: &str) -> String {
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("bash").args(["-c", line]).env("PATH", path).output().expect("bash runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
