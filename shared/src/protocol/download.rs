//! What `qlaunch-worker download` prints while it brings a model or data file from the Hub: one JSON object a line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Error;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DownloadEvent {
    /// It goes on; about one a second, also while nothing arrives.
    Progress {
        /// Bytes that are there of what was missing.
        done: u64,
        /// Bytes that were missing.
        total: u64,
    },
    /// Something is tried again.
    Again {
        /// Why.
        error: Error,
    },
    /// Everything that was asked for is there; the last line.
    Found(Snapshot),
    /// It ends here; the last line.
    Failed {
        /// Why.
        error: Error,
    },
}

/// One commit of a repository of the Hub, as far as it is needed, in the layout of Hugging Face's cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of the protocol.
    pub version: u32,
    /// `ORG/NAME`.
    pub repository: String,
    /// The commit that the revision means.
    pub commit: String,
    /// Folder of the commit's files, where they are or will be.
    pub folder: PathBuf,
    /// The files that are needed; where the Hub was not asked, those that are needed at least.
    pub files: Vec<SnapshotFile>,
    /// Folder of small files and headers, where those were asked for and the snapshot is not complete.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub headers: Option<PathBuf>,
    /// What a person should know about how it was found.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
}

impl Snapshot {
    /// Bytes that have still to be downloaded.
    pub fn missing(&self) -> u64 {
        self.files.iter().map(|file| file.missing).sum()
    }
}

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFile {
    /// Path in the repository.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Bytes that have still to be downloaded.
    pub missing: u64,
}
