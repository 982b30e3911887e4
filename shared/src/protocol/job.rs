//! `spec.json`: everything a worker must know to do one job.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::compute::{DeviceChoice, NumericPath};
use crate::assign::{Aims, Grouping, MixedGroups, Piece};
use crate::recipe::Recipe;

/// One job of a run: produce, audit and evaluate one candidate, or evaluate a model as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// [`super::VERSION`] of the program that wrote the file.
    pub version: u32,
    /// Name of the run that the job belongs to.
    pub run: String,
    /// Name of the candidate, unique in its run.
    pub candidate: String,
    /// Folder of the source model.
    pub model: PathBuf,
    /// How to make the checkpoint; absent for a baseline, which is evaluated as it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quantize: Option<Quantize>,
    /// Candidates of the same run whose calibration this job does on the way, so that it is done once: only with a store.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub calibrate: Vec<Quantize>,
    /// Folder of the store; absent where nothing is kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub store: Option<PathBuf>,
    /// Whether every tensor of the model is read and digested again, whatever the store knows of its files.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub rehash: bool,
    /// Pieces of a checkpoint to make again and to hold against what it has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reproduce: Option<Reproduce>,
    /// How to measure it; absent where only a checkpoint is wanted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub evaluate: Option<Evaluate>,
    /// What the job may use.
    #[serde(default)]
    pub resources: Resources,
}

/// The making of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quantize {
    /// The recipe, resolved, so that a node needs no recipe library.
    pub recipe: Recipe,
    /// What becomes of fused groups that the recipe gives mixed numerics.
    #[serde(skip_serializing_if = "MixedGroups::is_default", default)]
    pub mixed_groups: MixedGroups,
    /// What stands in for the statistics of experts that saw no token.
    #[serde(skip_serializing_if = "SilentExperts::is_default", default)]
    pub silent_experts: SilentExperts,
    /// Tokens to calibrate on; a recipe without activation statistics does without.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub calibration: Option<TokenSource>,
    /// Folder of the checkpoint, which must be absent or empty; `checkpoint` in the attempt's folder if not given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub out: Option<PathBuf>,
    /// Largest size of one safetensors file in bytes; one tensor more than fits starts the next file.
    pub shard_bytes: u64,
    /// Hash of the assignment that was planned: a worker whose model and recipe come to another one ends before it calibrates.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub assignment: Option<String>,
    /// Leaves the digests of tensors out of a checkpoint that is made without a store.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub no_digests: bool,
}

impl Quantize {
    /// What the recipe is resolved for.
    pub const fn aims(&self, grouping: Grouping) -> Aims {
        Aims { shard_bytes: self.shard_bytes, grouping, mixed_groups: self.mixed_groups }
    }
}

/// The making of a checkpoint's pieces again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reproduce {
    /// Folder of the checkpoint, which is only read.
    pub checkpoint: PathBuf,
    /// How it was made.
    pub made: Quantize,
    /// Digest of the tokens that it was calibrated on; other ones are refused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tokens_sha256: Option<String>,
    /// What of it is made again.
    pub pieces: Vec<Piece>,
}

/// What stands in for the statistics of routed experts that saw no token in calibration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SilentExperts {
    /// What the other experts of the layer saw, where it says something of this one: the input of its gate and up
    /// projections. What its down projection reads is its own; there its weights decide.
    #[default]
    Peers,
    /// Its weights alone: scales from their largest magnitudes, rounded to nearest.
    Weights,
    /// Nothing: the job fails, and names them.
    Fail,
}

impl SilentExperts {
    /// All of them, by their names.
    pub const ALL: [(&'static str, Self); 3] =
        [("peers", Self::Peers), ("weights", Self::Weights), ("fail", Self::Fail)];

    /// Whether it is what happens unless somebody asks for something else.
    pub const fn is_default(&self) -> bool {
        matches!(self, Self::Peers)
    }

    /// Its name in files and flags.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peers => "peers",
            Self::Weights => "weights",
            Self::Fail => "fail",
        }
    }
}

/// The measuring of a model or checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluate {
    /// What to evaluate; the checkpoint just made, or the model itself, if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checkpoint: Option<PathBuf>,
    /// Tokens to predict.
    pub tokens: TokenSource,
    /// What the KL divergence is measured against.
    #[serde(default)]
    pub reference: Reference,
    /// Perplexities that no rule can allow: the job ends as soon as its own cannot come below one of them any more.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ceilings: Vec<Ceiling>,
}

/// A perplexity beyond which measuring is not worth its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// The rule that it follows from, as the sweep file has it: `acceptance.perplexity`, `gates.perplexity`.
    pub rule: String,
    /// What it is told in.
    #[serde(flatten)]
    pub height: Height,
}

/// What a ceiling is told in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Height {
    /// A perplexity.
    Perplexity(f64),
    /// A multiple of what the kept reference came to.
    TimesReference(f64),
}

/// Tokens from a `.jsonl`, `.txt` or `.npy` file, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSource {
    /// The file.
    pub data: PathBuf,
    /// At most this many samples (calibration) or windows (evaluation).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub samples: Option<usize>,
    /// Tokens per sample.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seq_len: Option<usize>,
    /// Samples that go through a layer together; changes speed and memory, never bytes.
    pub batch_size: usize,
    /// Seed of whatever is drawn at random; nothing is, as long as samples are taken in file order.
    #[serde(default)]
    pub seed: u64,
}

/// What an evaluation's KL divergence is measured against.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// No KL divergence.
    #[default]
    None,
    /// This job is the reference: keep its final hidden states in `reference.safetensors` of the attempt's folder.
    Keep,
    /// The final hidden states that a `Keep` job left in this file.
    Kept(PathBuf),
    /// Run this model first.
    Model(PathBuf),
}

/// What a job may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU threads; all cores if absent, shared by the ranks of a host.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub threads: Option<usize>,
    /// Where the work is done; a GPU where one can be used, else the CPU, if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<DeviceChoice>,
    /// Numeric path; the best one of the device if absent. A node without it refuses the job.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub numeric_path: Option<NumericPath>,
    /// Processes that share the model's layers; one if absent. Threads are those of each.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ranks: Option<usize>,
}
