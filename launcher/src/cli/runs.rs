//! Finds a run by what a person types: its name, its folder, or nothing for the newest.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use qlaunch_shared::sweep::{Sweep, read_sweep};
use qlaunch_shared::yaml::did_you_mean;
use qlaunch_shared::{Error, Result};

use crate::config::{Overrides, Settings, Surroundings};
use crate::journal::{Line, parse};
use crate::plan::Saved;
use qlaunch_shared::protocol::RunFolder;

/// Which run is meant.
#[derive(Debug, Args)]
pub struct RunChoice {
    /// Name or folder of the run; the newest if not given.
    pub run: Option<String>,
    /// Folder of all runs.
    #[arg(long, value_name = "DIR")]
    pub runs: Option<PathBuf>,
}

/// A run that was submitted.
#[derive(Debug)]
pub struct KnownRun {
    /// As it was submitted.
    pub saved: Saved,
    /// The settings of its cluster, as they are now.
    pub settings: Settings,
}

impl RunChoice {
    /// The run, and the job of it where `RUN/JOB` was typed. A folder with a run in it is that run.
    ///
    /// # Errors
    /// Settings that cannot be read.
    pub fn with_job(&self, around: &Surroundings) -> Result<(Self, Option<String>)> {
        let (run, runs) = (self.run.clone(), self.runs.clone());
        let Some((above, job)) = run.as_deref().and_then(|run| run.trim_end_matches('/').rsplit_once('/'))
        else {
            return Ok((Self { run, runs }, None));
        };
        let overrides = Overrides { runs: self.runs.clone(), ..Overrides::default() };
        let all = Settings::load("local", around, &overrides)?.runs;
        let is_run = |text: &str| {
            [all.join(text), around.project.join(text)].iter().any(|folder| Saved::path(folder).exists())
        };
        match is_run(run.as_deref().unwrap_or_default()) || !is_run(above) {
            true => Ok((Self { run, runs }, None)),
            false => Ok((Self { run: Some(above.to_owned()), runs }, Some(job.to_owned()))),
        }
    }

    /// The folder of the run.
    ///
    /// # Errors
    /// No such run.
    pub fn folder(&self, around: &Surroundings) -> Result<PathBuf> {
        let overrides = Overrides { runs: self.runs.clone(), ..Overrides::default() };
        let runs = Settings::load("local", around, &overrides)?.runs;
        match &self.run {
            Some(run) => find(run, &runs, around),
            None => newest(&runs),
        }
    }

    /// The run with the settings of its cluster.
    ///
    /// # Errors
    /// No such run, or a cluster whose profile is gone.
    pub fn open(&self, around: &Surroundings) -> Result<KnownRun> {
        let saved = Saved::read(&self.folder(around)?)?;
        let overrides = Overrides { runs: self.runs.clone(), ..Overrides::default() };
        let settings = Settings::load(&saved.cluster, around, &overrides)?;
        Ok(KnownRun { saved, settings })
    }
}

impl KnownRun {
    /// The sweep as it was submitted.
    ///
    /// # Errors
    /// A copy that is gone or damaged.
    pub fn sweep(&self) -> Result<Sweep> {
        let path = RunFolder(self.saved.run.folder.clone()).sweep();
        let text = fs::read_to_string(&path).map_err(|error| Error::io("read the sweep", &path, &error))?;
        read_sweep(&text, &self.saved.sweep)
    }

    /// What its journal says now, whoever drives the run.
    ///
    /// # Errors
    /// A journal that cannot be read.
    pub fn journal(&self) -> Result<Vec<Line>> {
        read_journal(&self.saved.run.folder)
    }
}

/// What the journal of a run says now; nothing before it began.
///
/// # Errors
/// A journal that cannot be read.
pub fn read_journal(folder: &Path) -> Result<Vec<Line>> {
    let path = RunFolder(folder.to_owned()).journal();
    match fs::read(&path) {
        Ok(bytes) => Ok(parse(&bytes).map_err(|error| error.at(&path))?.0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("read the journal", &path, &error)),
    }
}

fn find(run: &str, runs: &Path, around: &Surroundings) -> Result<PathBuf> {
    let (named, typed) = (runs.join(run), around.project.join(run));
    match [named, typed].into_iter().find(|folder| folder.is_dir()) {
        Some(folder) => Ok(folder),
        None => {
            let known: Vec<String> = by_age(runs).into_iter().map(|(_, name)| name).collect();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            Err(Error::input(format!("there is no run `{run}`")).at(runs).hint(did_you_mean(run, &known)))
        }
    }
}

fn newest(runs: &Path) -> Result<PathBuf> {
    let newest = by_age(runs).into_iter().max();
    newest.map(|(_, name)| runs.join(name)).ok_or_else(|| {
        Error::input("there is no run yet")
            .at(runs)
            .hint("make one: `qlaunch submit examples/sweeps/tiny-llama.yaml`")
    })
}

/// Runs with the time of the last word in their journals.
fn by_age(runs: &Path) -> Vec<(SystemTime, String)> {
    let folders = fs::read_dir(runs).into_iter().flatten().flatten();
    folders
        .filter_map(|folder| {
            let written = RunFolder(folder.path()).journal().metadata().ok()?.modified().ok()?;
            Some((written, folder.file_name().into_string().ok()?))
        })
        .collect()
}
