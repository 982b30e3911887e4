//! `outcome.json`: how an attempt ended, written once, by temp file and rename.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{NumericPath, Phase};
use crate::Error;
use crate::assign::{Piece, Totals};

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// [`super::VERSION`] of the program that wrote the file.
    pub version: u32,
    /// Name of the candidate.
    pub candidate: String,
    /// Whether it was done.
    pub status: Status,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<Error>,
    /// What was made, or, for a baseline, what was evaluated.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checkpoint: Option<CheckpointSummary>,
    /// What was calibrated on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub calibration: Option<CalibrationSummary>,
    /// The gates, in the order they were asked.
    #[serde(default)]
    pub gates: Vec<Verdict>,
    /// `quality.json` of the checkpoint that was made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quality: Option<PathBuf>,
    /// What was measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub evaluation: Option<Evaluation>,
    /// Pieces of a checkpoint that were made again.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub reproduced: Vec<Reproduced>,
    /// How long each phase took.
    #[serde(default)]
    pub phases: Vec<PhaseTime>,
    /// Numeric path of every result here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub numeric_path: Option<NumericPath>,
    /// CPU threads that were used.
    #[serde(default)]
    pub threads: usize,
    /// Version of the worker.
    pub worker: String,
    /// Highest resident memory in bytes (`VmHWM`), of the rank with most.
    #[serde(default)]
    pub peak_memory: u64,
    /// User and system CPU time in seconds, of all ranks.
    #[serde(default)]
    pub cpu_seconds: f64,
    /// What each rank took, where several shared the work to its end.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ranks: Vec<RankSummary>,
}

/// A piece of a checkpoint that was made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reproduced {
    /// Which.
    pub piece: Piece,
    /// Tensors that it has.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Names of tensors that the checkpoint has with other bytes, another type or shape, lacks, or has beyond those.
    pub differing: Vec<String>,
}

/// What one rank of a job took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankSummary {
    /// Which rank, from 0.
    pub rank: usize,
    /// Name of its host.
    pub host: String,
    /// CPU threads that it used.
    pub threads: usize,
    /// Highest resident memory in bytes (`VmHWM`).
    pub peak_memory: u64,
    /// User and system CPU time in seconds.
    pub cpu_seconds: f64,
}

/// Whether an attempt was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All steps were taken. Gates may still have failed.
    Done,
    /// An error ended it.
    Failed,
    /// It stopped at a safe point and can be started again.
    Interrupted,
}

/// A checkpoint and its figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointSummary {
    /// Its folder.
    pub path: PathBuf,
    /// Hash that names the assignment.
    pub assignment: String,
    /// Its figures, beside the other keys.
    #[serde(flatten)]
    pub totals: Totals,
}

/// What was calibrated on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalibrationSummary {
    /// The file.
    pub data: PathBuf,
    /// SHA-256 of the token ids as little-endian int32, sample after sample.
    pub tokens_sha256: String,
    /// Samples used.
    pub samples: usize,
    /// Samples that were too short and left out.
    pub skipped: usize,
    /// Tokens used.
    pub tokens: usize,
}

/// What a gate said, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Name of the gate.
    pub gate: String,
    /// What it said.
    pub verdict: VerdictKind,
    /// The figures or names that made it say so.
    pub evidence: Vec<String>,
}

/// What a gate can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// The rule holds.
    Pass,
    /// The rule is broken.
    Fail,
    /// It cannot be told.
    Indeterminate,
}

/// What an evaluation measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// `exp(nll)`. JSON has no word for NaN and infinity: both are written, and read as NaN, as `null`.
    #[serde(deserialize_with = "number_or_null")]
    pub perplexity: f64,
    /// Mean negative log-likelihood in nats per scored token.
    #[serde(deserialize_with = "number_or_null")]
    pub nll: f64,
    /// Scored tokens: all but the first of each window.
    pub tokens: u64,
    /// Windows.
    pub windows: usize,
    /// Mean KL divergence from the reference in nats per scored token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kl_mean: Option<f64>,
    /// Perplexity of the reference on the same tokens.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reference_perplexity: Option<f64>,
}

fn number_or_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// How long a phase took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// Which.
    pub phase: Phase,
    /// Wall time in seconds.
    pub seconds: f64,
    /// User and system CPU time in seconds.
    pub cpu_seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perplexity_that_is_not_finite_survives_as_not_a_number() {
        let broken = Evaluation {
            perplexity: f64::INFINITY,
            nll: f64::NAN,
            tokens: 3,
            windows: 1,
            kl_mean: None,
            reference_perplexity: None,
        };
        let text = serde_json::to_string(&broken).unwrap();
        let read: Evaluation = serde_json::from_str(&text).unwrap();
        assert!(read.perplexity.is_nan() && read.nll.is_nan());
        assert_eq!(read.tokens, 3);
    }
}
