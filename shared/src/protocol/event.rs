//! `events.jsonl`: what a worker says while it works, one JSON object a line.

use serde::{Deserialize, Serialize};

use super::NumericPath;
use crate::Error;

/// One line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 0 within an attempt; a gap means lost lines.
    pub sequence: u64,
    /// Milliseconds since the Unix epoch on the worker's clock.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventBody {
    /// The worker has read its spec and begins.
    Started {
        /// Version of the worker.
        worker: String,
        /// Name of the host.
        host: String,
        /// Process id on that host.
        pid: u32,
        /// CPU threads in use.
        threads: usize,
        /// Numeric path in use.
        numeric_path: NumericPath,
    },
    /// A phase begins.
    Phase {
        /// Which.
        phase: Phase,
        /// How much there is to do, in `unit`s.
        total: u64,
        /// What `total` and later `done` count.
        unit: Unit,
    },
    /// A phase goes on; at most a few a second.
    Progress {
        /// Which.
        phase: Phase,
        /// How much is done, in the phase's units.
        done: u64,
        /// Decoder layer at work, from 1, where the phase has layers.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        layer: Option<usize>,
        /// How many decoder layers there are.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        layers: Option<usize>,
        /// Tokens through whole models per second, where tokens flow.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        tokens_per_second: Option<f64>,
    },
    /// A phase is over.
    PhaseDone {
        /// Which.
        phase: Phase,
        /// How long it took.
        seconds: f64,
    },
    /// Something a person should know.
    Note {
        /// How much it matters.
        level: Level,
        /// A sentence.
        message: String,
    },
    /// The attempt is over; `outcome.json` has the result.
    Finished,
    /// The attempt failed; `outcome.json` has the same error.
    Failed {
        /// Why.
        error: Error,
    },
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reading the model's headers and the data.
    Load,
    /// Collecting activation statistics.
    Calibrate,
    /// Quantizing weights and writing the checkpoint.
    Quantize,
    /// Checking the checkpoint.
    Audit,
    /// Running the unquantized model, which the KL divergence is measured against.
    Reference,
    /// Measuring perplexity with the quantization simulated.
    Evaluate,
}

impl Phase {
    /// The word a person sees.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Calibrate => "calibrate",
            Self::Quantize => "quantize",
            Self::Audit => "audit",
            Self::Reference => "reference",
            Self::Evaluate => "evaluate",
        }
    }
}

/// What a phase counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Token × layer steps: tokens pass every layer once.
    TokenLayers,
    /// Bytes of source weights.
    Bytes,
    /// Checks, files or other small things.
    Steps,
}

/// How much a note matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For the record.
    Info,
    /// A person should look at it.
    Warning,
}
