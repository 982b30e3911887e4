//! The job script: a template, strict about every name in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::{Environment, UndefinedBehavior, context};
use qlaunch_shared::{Error, Result};

use super::budget::seconds;
use crate::config::{ContainerRuntime, DockerProfile, NodeRuntime, ProcessProfile, Profile};

/// What a job script is rendered from.
#[derive(Debug, Clone, PartialEq)]
pub struct Script<'a> {
    /// Name of the run.
    pub run: &'a str,
    /// Name of the candidate.
    pub candidate: &'a str,
    /// Name of the cluster.
    pub cluster: &'a str,
    /// The job's folder.
    pub folder: &'a Path,
    /// The worker binary.
    pub worker: &'a Path,
    /// What the cluster's profile adds to every job.
    pub extras: &'a Extras,
    /// File that must be there before the job can do anything: what its baseline leaves.
    pub needs: Option<&'a Path>,
    /// The run's folder, where the job puts the `reference.safetensors` that candidates wait for.
    pub leaves: Option<&'a Path>,
    /// Files and folders that the worker reads.
    pub reads: Vec<&'a Path>,
    /// Folders that it writes.
    pub writes: Vec<PathBuf>,
    /// Seconds before its time limit at which the job is told to stop.
    pub lead: u32,
    /// The tasks of an array, where it is one's script.
    pub array: Option<Vec<Task>>,
}

/// A task of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The job's folder.
    pub folder: PathBuf,
    /// Which try.
    pub attempt: u32,
}

/// What a cluster's profile adds to every job.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extras {
    /// Shell lines before the worker.
    pub setup: Vec<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// File with secret environment variables, readable by its owner alone.
    pub secrets: Option<String>,
    /// What is asked of SLURM; its `options` are complete, from every key of the profile.
    pub slurm: SlurmExtras,
    /// How containers are made; its `options` are complete, from every key of the profile.
    pub docker: DockerExtras,
    /// What a job takes of hosts without a scheduler.
    pub process: ProcessProfile,
    /// Names of the variables in the file of secrets.
    pub secret_names: Vec<String>,
}

/// What is asked of SLURM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlurmExtras {
    /// Nodes of each job.
    pub nodes: u32,
    /// Ranks on each node.
    pub ranks_per_node: u32,
    /// Margin in seconds of the signal before the time limit.
    pub signal_seconds: u32,
    /// CPUs of each rank, 0 where nothing is said.
    pub cpus: u32,
    /// GPUs of each node.
    pub gpus: u32,
    /// The time limit in seconds.
    pub limit: Option<u32>,
    /// How often a stopped job queues itself again.
    pub restarts: u32,
    /// Everything that stands behind `#SBATCH`.
    pub options: Vec<String>,
    /// Tasks of an array that run at a time; all if 0.
    pub array_width: u32,
    /// Image that jobs run in.
    pub container: Option<String>,
    /// What runs it.
    pub container_runtime: NodeRuntime,
    /// Options of what runs it.
    pub container_options: Vec<String>,
}

/// How containers are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerExtras {
    /// The program that makes them.
    pub runtime: ContainerRuntime,
    /// Address of its daemon, where that is not the usual one.
    pub address: Option<String>,
    /// The image.
    pub image: String,
    /// Whether the image is made by us, of what the worker needs.
    pub own: bool,
    /// CPUs of each container; all of the host if none.
    pub cpus: Option<u32>,
    /// GPUs of each container.
    pub gpus: u32,
    /// Arguments of `docker create`.
    pub options: Vec<String>,
}

impl DockerExtras {
    /// Arguments that give a container any GPUs, to try whether that can be done.
    pub fn any_gpus(&self) -> Vec<String> {
        match (self.gpus, self.runtime) {
            (0, _) => Vec::new(),
            (gpus, ContainerRuntime::Docker) => vec![format!("--gpus={gpus}")],
            (_, ContainerRuntime::Podman) => vec!["--device=nvidia.com/gpu=all".to_owned()],
        }
    }

    fn of(docker: &DockerProfile) -> Self {
        let mut options = vec![format!("--network={}", docker.network)];
        options.extend(docker.cpus.map(|cpus| format!("--cpus={cpus}")));
        // Without swap, so that a job that needs too much ends instead of crawling.
        let memory = |memory: &String| [format!("--memory={memory}"), format!("--memory-swap={memory}")];
        options.extend(docker.memory.iter().flat_map(memory));
        if docker.gpus > 1 {
            // NCCL passes data between GPUs through it; 64 MB are too few.
            options.push("--shm-size=1g".to_owned());
        }
        options.extend(docker.options.iter().cloned());
        Self {
            runtime: docker.runtime,
            address: docker.address.clone(),
            image: docker.image.clone().unwrap_or_default(),
            own: docker.image.is_none(),
            cpus: docker.cpus,
            gpus: docker.gpus,
            options,
        }
    }
}

impl Extras {
    /// What a profile adds.
    pub fn of(profile: &Profile) -> Self {
        let slurm = &profile.slurm;
        let mut options = Vec::new();
        let given = [
            ("partition", &slurm.partition),
            ("account", &slurm.account),
            ("qos", &slurm.qos),
            ("constraint", &slurm.constraint),
            ("reservation", &slurm.reservation),
            ("time", &slurm.time),
            ("mem", &slurm.memory),
        ];
        options.extend(given.iter().filter_map(|(key, value)| Some(format!("--{key}={}", value.as_ref()?))));
        options.extend(slurm.cpus.map(|cpus| format!("--cpus-per-task={cpus}")));
        if slurm.gpus > 0 {
            let kind = slurm.gpu_type.as_ref().map_or(String::new(), |kind| format!("{kind}:"));
            options.push(format!("--gres=gpu:{kind}{}", slurm.gpus));
        }
        options.extend(slurm.options.iter().cloned());
        Self {
            setup: profile.setup.clone(),
            environment: profile.environment.clone(),
            secrets: None,
            slurm: SlurmExtras {
                nodes: slurm.nodes,
                ranks_per_node: slurm.ranks_per_node,
                signal_seconds: slurm.signal_seconds,
                cpus: slurm.cpus.unwrap_or(0),
                gpus: slurm.gpus,
                limit: slurm.time.as_deref().and_then(seconds),
                restarts: slurm.restarts,
                options,
                array_width: slurm.array_width,
                container: slurm.container.clone(),
                container_runtime: slurm.container_runtime,
                container_options: slurm.container_options.clone(),
            },
            docker: DockerExtras::of(&profile.docker),
            process: profile.process.clone(),
            secret_names: profile.secrets.clone(),
        }
    }
}

/// A job template, read once for all scripts. The filter `shell` quotes a value for a POSIX shell.
#[derive(Debug)]
pub struct Template<'a> {
    environment: Environment<'a>,
    /// Where it came from, for errors.
    origin: &'a Path,
}

impl<'a> Template<'a> {
    /// Reads a template.
    ///
    /// # Errors
    /// It is broken; the line is named.
    pub fn read(text: &'a str, origin: &'a Path) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.add_filter("shell", |value: String| quote(&value));
        environment.add_template(NAME, text).map_err(|error| fault(&error, origin))?;
        Ok(Self { environment, origin })
    }

    /// Renders a job script.
    ///
    /// # Errors
    /// The template names something that is not there, with its line.
    pub fn render(&self, script: &Script<'_>) -> Result<String> {
        let template = self.environment.get_template(NAME);
        let rendered = template.and_then(|template| template.render(values(script)));
        let mut text = rendered.map_err(|error| fault(&error, self.origin))?;
        // The template engine drops the last newline, and a script without it is torn.
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }
}

/// What the engine knows the template by.
const NAME: &str = "job";

fn fault(error: &minijinja::Error, origin: &Path) -> Error {
    let failure = Error::input(format!("the job template cannot be rendered: {error}")).at(origin);
    match error.line() {
        Some(line) => failure.line(line, 1),
        None => failure,
    }
    .hint("templates may use: run, candidate, cluster, folder, worker, version, setup, environment, secrets, secret_names, reads, writes, needs, leaves, array, slurm, docker, process, and the filter `shell`")
}

/// What templates may use.
fn values(script: &Script<'_>) -> minijinja::Value {
    let task = |task: &Task| {
        context! { folder => task.folder.display().to_string(), attempt => task.attempt }
    };
    context! {
        array => script.array.as_ref().map(|tasks| tasks.iter().map(task).collect::<Vec<_>>()),
        run => script.run,
        candidate => script.candidate,
        cluster => script.cluster,
        folder => script.folder.display().to_string(),
        worker => script.worker.display().to_string(),
        version => env!("CARGO_PKG_VERSION"),
        setup => script.extras.setup.clone(),
        environment => script.extras.environment.clone(),
        secrets => script.extras.secrets.as_deref(),
        slurm => context! {
            nodes => script.extras.slurm.nodes,
            ranks_per_node => script.extras.slurm.ranks_per_node,
            signal_seconds => script.lead,
            restarts => script.extras.slurm.restarts,
            array_width => script.extras.slurm.array_width,
            options => script.extras.slurm.options.clone(),
            container => script.extras.slurm.container.as_deref(),
            container_runtime => script.extras.slurm.container_runtime.name(),
            container_options => script.extras.slurm.container_options.clone(),
        },
        docker => context! {
            runtime => script.extras.docker.runtime.name(),
            address => script.extras.docker.address.as_deref(),
            image => script.extras.docker.image.clone(),
            cpus => script.extras.docker.cpus,
            gpus => script.extras.docker.gpus,
            options => script.extras.docker.options.clone(),
        },
        process => context! {
            hosts => script.extras.process.hosts,
            ranks_per_host => script.extras.process.ranks_per_host,
        },
        secret_names => script.extras.secret_names.clone(),
        reads => script.reads.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        writes => script.writes.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        needs => script.needs.map(|path| path.display().to_string()),
        leaves => script.leaves.map(|path| path.display().to_string()),
    }
}

/// A value as one word of a POSIX shell, whatever is in it.
pub fn quote(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@%,".contains(c);
    match !value.is_empty() && value.chars().all(plain) {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
