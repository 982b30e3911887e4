//! What a sweep file says: the question (objective, acceptance) and everything needed to answer it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bound::Bound;
use crate::protocol::{Resources, SilentExperts, TokenSource};

/// Version of the sweep file that this program reads.
pub const VERSION: u32 = 1;

/// A sweep: which candidates to make of a model, and how to choose among them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// Version of the file; [`VERSION`].
    pub version: u32,
    /// Name of the sweep; runs are named after it.
    pub name: String,
    /// Folder of the source model.
    pub model: PathBuf,
    /// What to make small (or large).
    pub objective: Objective,
    /// What a candidate must keep to be accepted, by portfolio key.
    pub acceptance: Rules,
    /// What candidates are calibrated on.
    pub calibration: Option<Data>,
    /// What candidates are measured on.
    pub evaluate: Option<Data>,
    /// The models as they are, that candidates are compared with.
    pub baselines: Vec<Baseline>,
    /// The candidates in the file's order.
    pub candidates: Vec<Candidate>,
    /// Rules beyond the worker's own gates, by portfolio key.
    pub gates: Rules,
    /// What each job may use.
    pub resources: Resources,
    /// A candidate whose perplexity is certain to end beyond so many times its limit is ended; none if `never`.
    #[serde(default = "early_stop")]
    pub early_stop: Option<f64>,
}

/// How far beyond its limit a candidate must be certain to end, unless the file says otherwise: far enough that nobody misses
/// the figure.
pub const EARLY_STOP: f64 = 2.0;

const fn early_stop() -> Option<f64> {
    Some(EARLY_STOP)
}

/// Rules by portfolio key, in the file's order.
pub type Rules = Vec<(String, Bound)>;

/// What to make small or large: a key of the portfolio's rows, and the direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objective {
    /// What the person wrote: `memory`, `compute`, or the key itself.
    pub name: String,
    /// Key of a portfolio row.
    pub key: String,
    /// Which end is better.
    pub goal: Goal,
}

impl Objective {
    /// The smallest checkpoint.
    pub fn memory() -> Self {
        Self { name: "memory".to_owned(), key: "bytes".to_owned(), goal: Goal::Min }
    }

    /// The least arithmetic: weight bits × activation bits per multiply, relative to bf16.
    pub fn compute() -> Self {
        Self { name: "compute".to_owned(), key: "compute".to_owned(), goal: Goal::Min }
    }
}

/// Which end of an objective is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Less is better.
    Min,
    /// More is better.
    Max,
}

/// Token data of a sweep and how much of it to use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// A `.jsonl`, `.txt` or `.npy` file.
    pub data: PathBuf,
    /// At most this many samples or windows.
    pub samples: Option<usize>,
    /// Tokens per sample.
    pub seq_len: Option<usize>,
    /// Samples that go through a layer together.
    pub batch_size: Option<usize>,
    /// Seed of whatever is drawn at random.
    pub seed: Option<u64>,
    /// What stands in for the statistics of experts that saw no token; of calibration data only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub silent_experts: Option<SilentExperts>,
}

/// Samples that go through a layer together unless the file says otherwise.
pub const DEFAULT_BATCH_SIZE: usize = 8;

impl Data {
    /// The same in the words of a job.
    pub fn tokens(&self) -> TokenSource {
        TokenSource {
            data: self.data.clone(),
            samples: self.samples,
            seq_len: self.seq_len,
            batch_size: self.batch_size.unwrap_or(DEFAULT_BATCH_SIZE),
            seed: self.seed.unwrap_or(0),
        }
    }
}

/// A model as it is, named by its dtype.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Its name, as rules refer to it: `bf16`.
    pub name: String,
}

/// One recipe to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Unique in the sweep; names the folder of its job.
    pub name: String,
    /// Name or path of the recipe.
    pub recipe: String,
    /// Changes to the recipe, as `key=value`.
    pub overrides: Vec<String>,
    /// KV cache numerics for a preset that leaves them open.
    pub kv_cache: Option<String>,
    /// Calibration data of its own; the sweep's if absent.
    pub calibration: Option<Data>,
    /// Line and column of the sweep file that it came from, for errors about it.
    #[serde(skip)]
    pub place: (usize, usize),
}

/// The name a candidate gets from its recipe: the last part of the path without its ending.
pub fn candidate_name(recipe: &str) -> String {
    let last = recipe.trim_end_matches('/').rsplit('/').next().unwrap_or(recipe);
    let stem = last.strip_suffix(".yaml").or_else(|| last.strip_suffix(".yml")).unwrap_or(last);
    stem.to_owned()
}

/// A path of the sweep file, taken from the file's own folder.
pub fn beside(sweep_file: &Path, path: &str) -> PathBuf {
    let folder = sweep_file.parent().unwrap_or(Path::new(""));
    normal(&folder.join(path))
}

/// Removes `.` and `name/..` where that does not change the meaning in the absence of symbolic links.
fn normal(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut parts: Vec<Component<'_>> = Vec::new();
    for part in path.components() {
        match (part, parts.last()) {
            (Component::CurDir, _) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.iter().collect()
}
