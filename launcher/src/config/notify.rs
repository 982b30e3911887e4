//! Who is told what happens to a run: the table `[notify]` of `qlaunch.toml`.

use serde::{Deserialize, Serialize};

/// Who is told of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Notify {
    /// A shell line, which gets one JSON document on its stdin and its sentence as `QLAUNCH_NOTICE`.
    pub command: Option<String>,
    /// An address that the same document is posted to, by curl.
    pub webhook: Option<String>,
    /// What is told.
    pub on: Vec<Occasion>,
}

impl Default for Notify {
    fn default() -> Self {
        Self { command: None, webhook: None, on: vec![Occasion::Failed, Occasion::Over] }
    }
}

/// Something that is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Occasion {
    /// A job was handed over.
    Started,
    /// A job's results are in place.
    Done,
    /// A try of a job was lost, and it is tried again.
    Lost,
    /// A job will not be tried again.
    Failed,
    /// The run is over and judged.
    Over,
}

impl Occasion {
    /// Its word in settings and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Done => "done",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Over => "over",
        }
    }
}
