//! How a cluster is used: the keys of `clusters/NAME.toml`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a cluster is used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What runs its jobs.
    pub kind: Kind,
    /// Jobs at a time, those that wait in a queue included.
    pub jobs: usize,
    /// Tries of a job whose process dies without an outcome.
    pub attempts: u32,
    /// Name of the job template.
    pub template: String,
    /// CPU threads of each job, if neither sweep nor flag says; all cores if none does.
    #[serde(default)]
    pub threads: Option<usize>,
    /// Processes that share the layers of each job's model, if neither sweep nor flag says; one if none does.
    #[serde(default)]
    pub ranks: Option<usize>,
    /// Folder on the cluster below which everything of ours lies; `~/` stands for the home folder there.
    #[serde(default)]
    pub workspace: Option<String>,
    /// Folder of what runs share, taken from the workspace, or from the runs on this machine: `store`, or `.store` there, if
    /// not given. Checkpoints share its files where it is on the same file system as they are.
    #[serde(default)]
    pub store: Option<String>,
    /// Which build of the worker may be shipped.
    #[serde(default)]
    pub worker_build: WorkerBuild,
    /// Shell lines that every job begins with: `module load …`.
    #[serde(default)]
    pub setup: Vec<String>,
    /// Environment variables of every job.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Names of environment variables here whose values jobs need and nobody may read.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Longest time between two looks at running jobs, in seconds; the time grows up to it while nothing changes.
    #[serde(default)]
    pub poll_seconds: Option<f64>,
    /// GPU-hours that a submission may take at most without anybody being asked.
    #[serde(default = "enough")]
    pub confirm_gpu_hours: f64,
    /// The way to the cluster; none where this machine is part of it.
    #[serde(default)]
    pub ssh: Option<SshProfile>,
    /// What is asked of SLURM.
    #[serde(default)]
    pub slurm: SlurmProfile,
    /// How containers are made.
    #[serde(default)]
    pub docker: DockerProfile,
    /// What a job takes of hosts without a scheduler.
    #[serde(default)]
    pub process: ProcessProfile,
}

/// Twelve GPUs for a working day.
const fn enough() -> f64 {
    100.0
}

/// What runs the jobs of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Processes of this machine.
    Local,
    /// Processes of a host that is reached over SSH.
    Ssh,
    /// SLURM, here or behind SSH.
    Slurm,
    /// Containers, here or behind SSH.
    Docker,
}

impl Kind {
    /// The word in profiles, which also names the built-in profile that others of the kind start from.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Ssh => "ssh",
            Self::Slurm => "slurm",
            Self::Docker => "docker",
        }
    }
}

/// Which build of the worker may be shipped to another machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerBuild {
    /// One that needs no glibc newer than 2.17, so that it runs on any node.
    #[default]
    Portable,
    /// Any, because a person says that the nodes are like this machine.
    Host,
}

/// The way to a cluster. What is not said is left to `~/.ssh/config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshProfile {
    /// Host name or alias.
    pub host: String,
    /// Further hosts without a scheduler, which see the same workspace; jobs go wherever there is room.
    #[serde(default)]
    pub others: Vec<String>,
    /// User there.
    #[serde(default)]
    pub user: Option<String>,
    /// Port there.
    #[serde(default)]
    pub port: Option<u16>,
    /// File of the key to log in with; what `~/.ssh/config` and the agent have if not given.
    #[serde(default)]
    pub identity: Option<PathBuf>,
    /// Hosts to go through, the first one first.
    #[serde(default)]
    pub jump: Vec<String>,
    /// An OpenSSH configuration to read instead of `~/.ssh/config`.
    #[serde(default)]
    pub config: Option<PathBuf>,
}

impl SshProfile {
    /// The names of all hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.host).chain(&self.others).map(String::as_str)
    }

    /// The way to one of the hosts alone.
    #[must_use]
    pub fn alone(&self, host: &str) -> Self {
        Self { host: host.to_owned(), others: Vec::new(), ..self.clone() }
    }
}

/// What a job takes of hosts without a scheduler. Jobs of all launchers of one user share a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessProfile {
    /// CPUs on each of its hosts; none means all of them, so that a host has one job at a time.
    pub cpus: Option<u32>,
    /// GPUs on each of its hosts.
    pub gpus: u32,
    /// Hosts of each job, whose ranks share the model's layers.
    pub hosts: u32,
    /// Ranks on each host, where a job has several hosts.
    pub ranks_per_host: u32,
    /// Seconds of silence after which the jobs of one of several hosts go to the others.
    pub lost_seconds: f64,
}

impl ProcessProfile {
    /// Seconds of silence after which the jobs of a host go elsewhere, as a duration.
    pub fn lost(&self) -> Duration {
        Duration::try_from_secs_f64(self.lost_seconds).unwrap_or_default()
    }

    /// Time that one of several hosts has for an answer.
    pub fn patience(&self) -> Duration {
        self.lost().clamp(Duration::from_secs(5), Duration::from_secs(30))
    }
}

impl Default for ProcessProfile {
    fn default() -> Self {
        Self { cpus: None, gpus: 0, hosts: 1, ranks_per_host: 1, lost_seconds: 300.0 }
    }
}

/// What is asked of SLURM for each job. What is not said is left to the cluster's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlurmProfile {
    /// `--partition`.
    pub partition: Option<String>,
    /// `--account`.
    pub account: Option<String>,
    /// `--qos`.
    pub qos: Option<String>,
    /// `--constraint`.
    pub constraint: Option<String>,
    /// `--reservation`.
    pub reservation: Option<String>,
    /// `--time`, as SLURM spells it.
    pub time: Option<String>,
    /// `--mem`, as SLURM spells it.
    pub memory: Option<String>,
    /// Nodes of each job, whose ranks share the model's layers.
    pub nodes: u32,
    /// Ranks on each node.
    pub ranks_per_node: u32,
    /// `--cpus-per-task`: CPUs of each rank.
    pub cpus: Option<u32>,
    /// GPUs of each node.
    pub gpus: u32,
    /// Type of the GPUs, where the cluster tells types apart.
    pub gpu_type: Option<String>,
    /// Seconds before the time limit at which a job is told to stop at a safe point, beside what its longest layer takes.
    pub signal_seconds: u32,
    /// How often a job that was stopped at a safe point or preempted puts itself into the queue again.
    pub restarts: u32,
    /// Most jobs that are handed over as one array, as far as the cluster's `MaxArraySize` allows; none with 0 or 1.
    pub array_size: u32,
    /// Tasks of an array that run at a time; all if 0.
    pub array_width: u32,
    /// Seconds that a job may be unknown to SLURM and to its folder before it counts as lost: file systems lag.
    pub lag_seconds: f64,
    /// Further lines behind `#SBATCH`.
    pub options: Vec<String>,
    /// Image that jobs run in; none means the node's own system.
    pub container: Option<String>,
    /// What runs the image.
    pub container_runtime: NodeRuntime,
    /// Further options of whatever runs the image.
    pub container_options: Vec<String>,
}

/// What runs containers on the nodes of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRuntime {
    /// Options of srun, from NVIDIA's plugin.
    #[default]
    Pyxis,
    /// A program on the node.
    Apptainer,
}

impl NodeRuntime {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pyxis => "pyxis",
            Self::Apptainer => "apptainer",
        }
    }
}

impl Default for SlurmProfile {
    fn default() -> Self {
        Self {
            partition: None,
            account: None,
            qos: None,
            constraint: None,
            reservation: None,
            time: None,
            memory: None,
            nodes: 1,
            ranks_per_node: 1,
            cpus: None,
            gpus: 0,
            gpu_type: None,
            signal_seconds: 120,
            restarts: 10,
            array_size: 1000,
            array_width: 0,
            lag_seconds: 60.0,
            options: Vec::new(),
            container: None,
            container_runtime: NodeRuntime::Pyxis,
            container_options: Vec::new(),
        }
    }
}

/// How the container of each job is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DockerProfile {
    /// The program that makes containers.
    pub runtime: ContainerRuntime,
    /// Address of its daemon (`DOCKER_HOST`), where that is not the usual one.
    pub address: Option<String>,
    /// Image that the worker runs in; none means one that qlaunch makes of the libraries that the worker needs.
    pub image: Option<String>,
    /// CPUs of each container; none means all of the host, so that containers run one after another.
    pub cpus: Option<u32>,
    /// Memory of each container, as Docker spells it; none means no limit.
    pub memory: Option<String>,
    /// GPUs of each container.
    pub gpus: u32,
    /// Network of each container.
    pub network: String,
    /// Further arguments of `docker create`.
    pub options: Vec<String>,
}

impl Default for DockerProfile {
    fn default() -> Self {
        Self {
            runtime: ContainerRuntime::Docker,
            address: None,
            image: None,
            cpus: None,
            memory: None,
            gpus: 0,
            network: "none".to_owned(),
            options: Vec::new(),
        }
    }
}

/// The program that makes containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerRuntime {
    /// Docker, by its daemon.
    #[default]
    Docker,
    /// Podman, which has none.
    Podman,
}

impl ContainerRuntime {
    /// Its name, which is also its command.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}
