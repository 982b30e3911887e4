//! Carries out a planned run: the one place where the asynchronous edges are started and waited for.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use qlaunch_shared::digest::sha256_of_file;
use qlaunch_shared::protocol::RunFolder;
use qlaunch_shared::{Error, Result};

use super::drive::Drive;
use super::listener::Listener;
use super::site::{Pace, Site, block_on};
use crate::backend::{Backend, Docker, Processes, Slots, Slurm, docker_refusal};
use crate::config::{Kind, Notify, Profile, Secrets, Settings, Surroundings, template};
use crate::engine::{Policy, State};
use crate::journal::{Entry, Journal, Line, VERSION};
use crate::plan::{Extras, PlannedRun, Template, quote};
use crate::ship::{Upload, portable_worker, prepare_image, ship_worker, worker_binary};
use crate::transport::Transport;

/// How a run is carried out.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Name of the cluster.
    pub cluster: String,
    /// What runs its jobs.
    pub kind: Kind,
    /// Where they run.
    pub site: Site,
    /// Text of the job template.
    pub template: String,
    /// Where the template came from.
    pub template_origin: PathBuf,
    /// What the profile adds to job scripts.
    pub extras: Extras,
    /// The worker binary, on the host where jobs run.
    pub worker: PathBuf,
    /// The worker as it has to be sent there, where that is another host.
    pub shipping: Option<Upload>,
    /// Names of the secrets that jobs need, and the values of those that are known here.
    pub secrets: (Vec<String>, Secrets),
    /// Rules for the engine.
    pub policy: Policy,
    /// Most jobs that are handed over as one array; none where fewer than two.
    pub array_size: usize,
    /// How often jobs are looked at.
    pub pace: Pace,
    /// How long SLURM may not know a job that is not lost.
    pub lag: Duration,
    /// What is to be done with jobs of earlier sessions.
    pub opening: Opening,
    /// Jobs that run again although they are done.
    pub again: Vec<String>,
    /// Who is told what happens.
    pub notify: Notify,
    /// Milliseconds since the Unix epoch before which the scheduler lets no job begin.
    pub(super) begin: Option<u64>,
}

/// How a session treats what earlier ones left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// What failed is tried again, what is done stays.
    Retry,
    /// Everything runs again.
    Fresh,
    /// Nothing that failed is tried again; what goes on is watched.
    Attach,
    /// Nothing begins; the session is over when the jobs that nobody wants have ended.
    Cancel,
}

/// Milliseconds that a worker has to stop: it promises five seconds, and a loaded machine gets twice that.
const GRACE: u64 = 10_000;
/// On a cluster a word to a job takes longer.
const FAR_GRACE: u64 = 120_000;

impl Setup {
    /// Takes the setup from the settings of a cluster and the site that they lead to.
    ///
    /// # Errors
    /// A template that is nowhere, no worker, or one that cannot be shipped.
    pub fn prepare(settings: &Settings, around: &Surroundings, site: Site, opening: Opening) -> Result<Self> {
        let profile = &settings.profile;
        let (template, template_origin) = template(&profile.template, around)?;
        // A template of one's own may be older than arrays.
        let has_arrays = profile.kind == Kind::Slurm && template.contains("for task in array");
        let local = worker_binary(settings, around)?;
        let shipping = match &site.workspace {
            None => None,
            Some(workspace) => Some(portable_worker(workspace, &local, settings)?),
        };
        let worker = shipping.as_ref().map_or(local, |file| file.to.clone());
        let mut extras = Extras::of(profile);
        if let Some(workspace) = site.workspace.as_ref().filter(|_| !profile.secrets.is_empty()) {
            let file = workspace.join(format!("secrets-{}.env", settings.cluster));
            extras.secrets = Some(file.display().to_string());
        }
        if profile.kind == Kind::Docker && extras.docker.own {
            let sha256 = match &shipping {
                Some(file) => file.sha256.clone(),
                None => sha256_of_file(&worker)?.0,
            };
            extras.docker.image = format!("qlaunch/worker:{}", sha256.get(..16).unwrap_or_default());
        }
        let near = site.workspace.is_none();
        Ok(Self {
            cluster: settings.cluster.clone(),
            kind: profile.kind,
            site,
            template,
            template_origin,
            extras,
            secrets: (profile.secrets.clone(), around.secrets.of(&profile.secrets).0),
            worker,
            shipping,
            policy: Policy {
                jobs: profile.jobs.min(places(profile)),
                attempts: profile.attempts,
                grace: if near { GRACE } else { FAR_GRACE },
                ahead: profile.kind == Kind::Slurm,
                begin: None,
                array: 0,
            },
            array_size: if has_arrays { profile.slurm.array_size as usize } else { 0 },
            pace: Pace::of(settings),
            lag: Duration::try_from_secs_f64(profile.slurm.lag_seconds).unwrap_or_default(),
            opening,
            again: Vec::new(),
            notify: settings.notify.clone(),
            begin: None,
        })
    }

    /// The job template.
    ///
    /// # Errors
    /// It is broken.
    pub fn job_template(&self) -> Result<Template<'_>> {
        Template::read(&self.template, &self.template_origin)
    }

    /// Lets no job begin before a moment, in milliseconds since the Unix epoch. SLURM is told so, and the launcher can go;
    /// elsewhere jobs wait in the launcher.
    pub fn not_before(&mut self, begin: Option<u64>) {
        match self.kind {
            Kind::Slurm => self.begin = begin,
            Kind::Local | Kind::Ssh | Kind::Docker => self.policy.begin = begin,
        }
    }

    /// The setup of jobs on this machine.
    ///
    /// # Errors
    /// A template that is nowhere, or no worker.
    pub fn local(settings: &Settings, around: &Surroundings) -> Result<Self> {
        block_on(async {
            let site = Site::open(settings, around).await?;
            Self::prepare(settings, around, site, Opening::Retry)
        })
    }

    /// Sends the worker to where the jobs run.
    ///
    /// # Errors
    /// A link that stays lost, a worker that does not run there.
    pub async fn ship(&self) -> Result<()> {
        if let Some(file) = &self.shipping {
            ship_worker(&self.site.host, file, &self.cluster).await?;
        }
        if self.kind == Kind::Docker {
            let settings = &self.extras.docker;
            let explain = |stderr: &str| docker_refusal(stderr, &settings.image, &self.cluster);
            prepare_image(&self.site.host, settings, &self.worker.display().to_string(), explain).await?;
        }
        match &self.extras.secrets {
            None => Ok(()),
            Some(path) => self.ship_secrets(path.as_ref()).await,
        }
    }

    /// Secrets travel through the connection into a file that only its owner can read: no script, argument or journal
    /// ever holds them. Where one is not known here, what was brought earlier serves.
    async fn ship_secrets(&self, path: &Path) -> Result<()> {
        let (names, known) = &self.secrets;
        let missing = names.iter().find(|name| !known.iter().any(|(other, _)| other == name.as_str()));
        if let Some(name) = missing {
            return match self.site.host.exists(path).await? {
                true => Ok(()),
                false => Err(Error::input(format!("the secret `{name}` has no value here"))
                    .key("secrets")
                    .hint(format!("`export {name}=…`, or take it out of the cluster's profile"))),
            };
        }
        let lines = known.iter().map(|(name, value)| format!("export {name}={}\n", quote(value)));
        self.site.host.write_private(path, lines.collect::<String>().as_bytes()).await
    }

    /// The hosts as a backend that starts processes.
    pub(super) fn processes(&self) -> Processes {
        let slots = if self.kind == Kind::Local { Slots::Unlimited } else { Slots::Counted };
        Processes::over(self.site.host.clone(), slots, self.extras.process.clone())
    }

    /// Whether jobs outlive a launcher that is asked to stop.
    pub fn detaches(&self) -> bool {
        self.kind != Kind::Local
    }
}

/// Jobs that there is room for at most: one that does not say how many CPUs it takes has all of its host.
fn places(profile: &Profile) -> usize {
    match (profile.kind, &profile.ssh) {
        (Kind::Docker, _) if profile.docker.cpus.is_none() => 1,
        (Kind::Ssh, Some(ssh)) if profile.process.cpus.is_none() => {
            ssh.hosts().count() / profile.process.hosts.max(1) as usize
        }
        _ => usize::MAX,
    }
}

/// How a session ended.
#[derive(Debug)]
pub struct Carried {
    /// What is known of the run.
    pub state: State,
    /// The journal, still held.
    pub journal: Journal,
    /// Whether somebody asked to stop before everything was done.
    pub interrupted: bool,
    /// Whether jobs go on without this launcher.
    pub detached: bool,
}

/// Carries out a run until nothing is left to do, or until somebody asks to stop.
///
/// # Errors
/// A run folder that cannot be written or is driven by another launcher. Failing jobs are no error here.
pub fn carry_out(run: &PlannedRun, setup: &Setup, listener: &mut dyn Listener) -> Result<Carried> {
    std::fs::create_dir_all(&run.folder)
        .map_err(|error| Error::io("make the run folder", &run.folder, &error))?;
    let (journal, lines) = Journal::open(&RunFolder(run.folder.clone()).journal())?;
    refuse_other_run(run, &lines)?;
    refuse_newer(run, &lines)?;
    let host = setup.site.host.clone();
    block_on(async {
        match setup.kind {
            Kind::Slurm => {
                let backend = Slurm::over(host.clone(), &setup.cluster, setup.lag).not_before(setup.begin);
                drive(Drive::new(run, setup, (journal, &lines), (backend, host), listener)).await
            }
            Kind::Docker => {
                let backend = Docker::over(host.clone(), &setup.cluster, setup.extras.docker.clone());
                drive(Drive::new(run, setup, (journal, &lines), (backend, host), listener)).await
            }
            Kind::Local | Kind::Ssh => {
                let backend = setup.processes();
                drive(Drive::new(run, setup, (journal, &lines), (backend, host), listener)).await
            }
        }
    })
}

async fn drive<B: Backend, T: Transport>(mut drive: Drive<'_, B, T>) -> Result<Carried> {
    drive.open().await?;
    drive.work().await?;
    Ok(drive.into_carried())
}

/// Two sweeps whose names and four digits are the same must not take each other's results for their own.
fn refuse_other_run(run: &PlannedRun, lines: &[Line]) -> Result<()> {
    let other =
        |line: &Line| matches!(&line.entry, Entry::Opened { identity, .. } if *identity != run.identity);
    match lines.iter().any(other) {
        true => Err(Error::input("the run folder belongs to another sweep of this name")
            .at(&run.folder)
            .hint("rename the sweep, or use another `--runs` folder")),
        false => Ok(()),
    }
}

/// A journal that says things this launcher does not know would be misread, and jobs handed over twice.
fn refuse_newer(run: &PlannedRun, lines: &[Line]) -> Result<()> {
    let newer = |line: &Line| match line.entry {
        Entry::Opened { version, .. } if version > VERSION => Some(version),
        _ => None,
    };
    match lines.iter().find_map(newer) {
        None => Ok(()),
        Some(version) => Err(Error::input(format!(
            "the journal is of version {version}, and this program knows {VERSION}"
        ))
        .at(RunFolder(run.folder.clone()).journal())
        .hint("go on with the newer qlaunch that began it")),
    }
}

/// Milliseconds since the Unix epoch.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
