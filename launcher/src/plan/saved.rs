//! `run.json`: a planned run as it was submitted, so that every later command knows it without planning again.

use std::fs;
use std::path::{Path, PathBuf};

use qlaunch_shared::{Error, Result};
use serde::{Deserialize, Serialize};

use super::expand::PlannedRun;

/// Version of `run.json`.
pub const RUN_VERSION: u32 = 1;

/// A submitted run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// [`RUN_VERSION`] of the program that wrote it.
    pub version: u32,
    /// Name of its cluster.
    pub cluster: String,
    /// The sweep file, absolute; a copy lies beside `run.json`.
    pub sweep: PathBuf,
    /// The command that submits it again.
    pub submit: String,
    /// Milliseconds since the Unix epoch before which its jobs do not begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<u64>,
    /// The run.
    pub run: PlannedRun,
}

impl Saved {
    /// Where it lies in a run's folder.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join("run.json")
    }

    /// Reads the run of a folder.
    ///
    /// # Errors
    /// No run there, or one of a version that this program does not know.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = Self::path(folder);
        let text = fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::input("there is no run in this folder")
                .at(folder)
                .hint("submit its sweep: `qlaunch submit SWEEP`"),
            _ => Error::io("read the run", &path, &error),
        })?;
        let unreadable = |error: serde_json::Error| {
            Error::input(format!("the run cannot be read: {error}"))
                .at(&path)
                .hint("use the version of qlaunch that submitted it, or submit its sweep again")
        };
        let mut saved: Self = serde_json::from_slice(&text).map_err(unreadable)?;
        if saved.version > RUN_VERSION {
            return Err(Error::input(format!("the run is of version {}", saved.version))
                .at(&path)
                .hint("use the version of qlaunch that submitted it"));
        }
        saved.run.folder = folder.to_owned();
        if saved.run.site.as_os_str().is_empty() {
            saved.run.site = folder.to_owned();
        }
        Ok(saved)
    }

    /// Writes it whole or not at all.
    ///
    /// # Errors
    /// A disk that is full or gone.
    pub fn write(&self) -> Result<()> {
        let path = Self::path(&self.run.folder);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::bug(format!("cannot spell the run: {error}")))?;
        let partial = path.with_extension("json.partial");
        fs::write(&partial, text)
            .and_then(|()| fs::rename(&partial, &path))
            .map_err(|error| Error::io("write the run", &path, &error))
    }
}
