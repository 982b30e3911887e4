//! `schedule.json`: a schedule as it was added, and what its timers led to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use qlaunch_shared::{Error, Result};
use serde::{Deserialize, Serialize};

use super::civil::Civil;
use super::every::Every;

/// Version of `schedule.json`.
pub const SCHEDULE_VERSION: u32 = 1;

/// Firings that are remembered.
const KEPT: usize = 100;

/// A sweep that runs again and again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// [`SCHEDULE_VERSION`] of the program that wrote it.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// The sweep file, absolute.
    pub sweep: PathBuf,
    /// Name of the cluster.
    pub cluster: String,
    /// The folder in which it was added: `clusters/`, `templates/` and `qlaunch.toml` are looked up there.
    pub project: PathBuf,
    /// Folder of all runs, absolute.
    pub runs: PathBuf,
    /// This program.
    pub program: PathBuf,
    /// Variables `QLAUNCH_…` as they were when it was added: timers start programs with few.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// When it runs.
    pub every: Every,
    /// When it was added, on the clock of the wall.
    pub added: Civil,
    /// Whether timers are told to go away.
    #[serde(default)]
    pub paused: bool,
    /// What came of it, the newest last.
    #[serde(default)]
    pub firings: Vec<Firing>,
}

/// One time that it ran, or would have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Firing {
    /// The moment that it stands for; the time of the call where a person asked for it.
    pub moment: Civil,
    /// Whether a timer asked for it.
    pub timer: bool,
    /// SHA-256 of the worker.
    pub worker: String,
    /// Name of the run; none if there is none.
    pub run: Option<String>,
    /// Exit code.
    pub code: u8,
    /// What got worse, or why it did not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Schedule {
    /// The folder of all schedules.
    pub fn folder(user: &Path) -> PathBuf {
        user.join("schedules")
    }

    /// The file in a schedule's folder.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join("schedule.json")
    }

    /// Reads the schedule of a folder.
    ///
    /// # Errors
    /// None there, or one that cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = Self::path(folder);
        let bytes = fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::input("there is no such schedule").at(folder).hint("`qlaunch schedule list` shows all")
            }
            _ => Error::io("read the schedule", &path, &error),
        })?;
        let schedule: Self = serde_json::from_slice(&bytes).map_err(|error| {
            Error::input(format!("the schedule cannot be read: {error}"))
                .at(&path)
                .hint("remove it and add it again")
        })?;
        match schedule.version > SCHEDULE_VERSION {
            true => Err(Error::input(format!("the schedule is of version {}", schedule.version))
                .at(&path)
                .hint("use the version of qlaunch that added it")),
            false => Ok(schedule),
        }
    }

    /// Writes it whole or not at all.
    ///
    /// # Errors
    /// A disk that is full or gone.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = Self::path(folder);
        let fault = |error: std::io::Error| Error::io("write the schedule", &path, &error);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::bug(format!("cannot spell the schedule: {error}")))?;
        fs::create_dir_all(folder).map_err(fault)?;
        let partial = path.with_extension("json.partial");
        fs::write(&partial, text).and_then(|()| fs::rename(&partial, &path)).map_err(fault)
    }

    /// The last moment of the schedule that it ran for.
    pub fn last(&self) -> Option<Civil> {
        self.firings.iter().filter(|firing| firing.timer).map(|firing| firing.moment).max()
    }

    /// Remembers what came of a firing.
    pub fn remember(&mut self, firing: Firing) {
        self.firings.push(firing);
        let old = self.firings.len().saturating_sub(KEPT);
        self.firings.drain(..old);
    }
}
