//! Carries out a planned run: the one place where the asynchronous edges are started and waited for.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use qlaunch_shared::protocol::RunFolder;
use qlaunch_shared::{Error, Result};

use super::drive::Drive;
use super::listener::Listener;
use crate::backend::Processes;
use crate::config::{Settings, Surroundings, template};
use crate::engine::{Policy, State};
use crate::journal::{Entry, Journal, Line};
use crate::plan::PlannedRun;
use crate::ship::worker_binary;
use crate::transport::Local;

/// How a run is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Name of the cluster.
    pub cluster: String,
    /// Text of the job template.
    pub template: String,
    /// Where the template came from.
    pub template_origin: PathBuf,
    /// The worker binary.
    pub worker: PathBuf,
    /// Rules for the engine.
    pub policy: Policy,
    /// Whether finished jobs run again.
    pub fresh: bool,
}

/// Milliseconds that a worker has to stop: it promises five seconds, and a loaded machine gets twice that.
const GRACE: u64 = 10_000;

impl Setup {
    /// Takes the setup from the settings.
    ///
    /// # Errors
    /// A kind of cluster without a backend, a template that is nowhere, no worker.
    pub fn from_settings(settings: &Settings, around: &Surroundings, fresh: bool) -> Result<Self> {
        let profile = &settings.profile;
        if profile.kind != "local" {
            let origin = settings.origin("profile.kind").unwrap_or_default();
            return Err(Error::input(format!("clusters of kind `{}` are not supported yet", profile.kind))
                .at(origin)
                .key("kind")
                .hint("use `--cluster local`"));
        }
        let (template, template_origin) = template(&profile.template, around)?;
        Ok(Self {
            cluster: settings.cluster.clone(),
            template,
            template_origin,
            worker: worker_binary(settings, around)?,
            policy: Policy { jobs: profile.jobs, attempts: profile.attempts, grace: GRACE },
            fresh,
        })
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::bug(format!("cannot start the event loop: {error}")))?;
    runtime.block_on(async {
        let mut drive = Drive::new(run, setup, (journal, &lines), (Processes::over(Local), Local), listener);
        drive.open().await?;
        drive.work().await?;
        Ok(drive.into_carried())
    })
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

/// Milliseconds since the Unix epoch.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
