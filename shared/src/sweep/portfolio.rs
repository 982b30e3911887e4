//! `portfolio.json`: the table of candidates with their figures, verdicts and decisions.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::file::Objective;
use crate::Error;
use crate::protocol::{NumericPath, VerdictKind};

/// Version of `portfolio.json`.
pub const PORTFOLIO_VERSION: u32 = 1;

/// The judged candidates of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Portfolio {
    /// Version of this form.
    pub version: u32,
    /// Name of the run.
    pub run: String,
    /// Name of the sweep.
    pub sweep: String,
    /// Folder of the source model.
    pub model: PathBuf,
    /// What was to be made small or large.
    pub objective: Objective,
    /// The acceptance rule in words: `perplexity within 1% of bf16`.
    pub acceptance: String,
    /// Baselines first, then candidates in the sweep's order.
    pub rows: Vec<Row>,
    /// Which candidate to take, or why none.
    pub recommendation: Recommendation,
    /// What to do next; commands mostly.
    pub next: Vec<String>,
}

/// One candidate or baseline. A figure that was not measured is absent. Definitions: `docs/portfolio.md`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the candidate or baseline.
    pub candidate: String,
    /// Name of its recipe; none for a baseline.
    pub recipe: Option<String>,
    /// The figure of the objective.
    pub objective: Option<f64>,
    /// Bytes of the checkpoint's safetensors files.
    pub bytes: Option<u64>,
    /// Bytes relative to the source.
    pub ratio: Option<f64>,
    /// Stored bits of all linear weights with their scales per weight element.
    pub effective_bits: Option<f64>,
    /// Bytes of weights and scales read to produce one token.
    pub active_bytes_per_token: Option<u64>,
    /// Weight bits × activation bits per multiply, summed, relative to bf16.
    pub compute: Option<f64>,
    /// Perplexity on the sweep's evaluation data; NaN and infinity become null in JSON and fail every rule.
    pub perplexity: Option<f64>,
    /// Mean negative log-likelihood in nats per scored token.
    pub nll: Option<f64>,
    /// Perplexity relative to the first baseline, minus one: 0.01 is 1% worse.
    pub delta: Option<f64>,
    /// Mean KL divergence from the first baseline in nats per scored token.
    pub kl_mean: Option<f64>,
    /// Scored tokens.
    pub tokens: Option<u64>,
    /// Highest resident memory of the worker in bytes.
    pub peak_memory: Option<u64>,
    /// CPU time of the worker in seconds.
    pub cpu_seconds: Option<f64>,
    /// Numeric path of every figure here.
    pub numeric_path: Option<NumericPath>,
    /// The worker's gates, then the sweep's.
    pub gates: Vec<GateResult>,
    /// What became of it.
    pub decision: Decision,
    /// Folder of the checkpoint, or of the source for a baseline.
    pub checkpoint: Option<PathBuf>,
    /// What a person should know about it.
    pub notes: Vec<String>,
}

/// Every key of a row that holds a number: what objectives, acceptance rules and gates may name.
pub const NUMERIC_KEYS: [&str; 12] = [
    "bytes",
    "ratio",
    "effective_bits",
    "active_bytes_per_token",
    "compute",
    "perplexity",
    "nll",
    "delta",
    "kl_mean",
    "tokens",
    "peak_memory",
    "cpu_seconds",
];

impl Row {
    /// A figure by its key; none where it was not measured or the key is not numeric.
    pub fn figure(&self, key: &str) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "figures are compared, not counted: 53 bits suffice")]
        let count = |value: Option<u64>| value.map(|value| value as f64);
        match key {
            "bytes" => count(self.bytes),
            "ratio" => self.ratio,
            "effective_bits" => self.effective_bits,
            "active_bytes_per_token" => count(self.active_bytes_per_token),
            "compute" => self.compute,
            "perplexity" => self.perplexity,
            "nll" => self.nll,
            "delta" => self.delta,
            "kl_mean" => self.kl_mean,
            "tokens" => count(self.tokens),
            "peak_memory" => count(self.peak_memory),
            "cpu_seconds" => self.cpu_seconds,
            _ => None,
        }
    }

    /// Whether any of its gates failed.
    pub fn gate_failed(&self) -> bool {
        self.gates.iter().any(|gate| gate.verdict == VerdictKind::Fail)
    }
}

/// What one gate said of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateResult {
    /// Name of the gate.
    pub gate: String,
    /// What it said.
    pub verdict: VerdictKind,
    /// The figures or names that made it say so.
    pub evidence: Vec<String>,
}

/// What became of a candidate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Decision {
    /// It was not run, or not to its end.
    #[default]
    Unfinished,
    /// It is what the others are compared with.
    Baseline,
    /// It is acceptable, and the best for the objective.
    Best,
    /// It is acceptable.
    Accepted,
    /// It ran, and broke a rule.
    Reject {
        /// Which, in a short phrase.
        reason: String,
    },
    /// It did not run to its end.
    Failed {
        /// Why.
        error: Error,
    },
}

/// Which candidate to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recommendation {
    /// Its name; none when no candidate is acceptable.
    pub candidate: Option<String>,
    /// Its checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// The reason as a sentence; if there is none to take, what came closest.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_keys_are_exactly_the_numbers_of_a_full_row() {
        let row = Row {
            objective: Some(1.0),
            bytes: Some(1),
            ratio: Some(1.0),
            effective_bits: Some(1.0),
            active_bytes_per_token: Some(1),
            compute: Some(1.0),
            perplexity: Some(1.0),
            nll: Some(1.0),
            delta: Some(1.0),
            kl_mean: Some(1.0),
            tokens: Some(1),
            peak_memory: Some(1),
            cpu_seconds: Some(1.0),
            ..Row::default()
        };
        let json = serde_json::to_value(&row).unwrap();
        let numbers: Vec<&str> = json
            .as_object()
            .unwrap()
            .iter()
            .filter(|(key, value)| value.is_number() && *key != "objective")
            .map(|(key, _)| key.as_str())
            .collect();
        assert_eq!(numbers, NUMERIC_KEYS);
        assert!(NUMERIC_KEYS.iter().all(|key| row.figure(key) == Some(1.0)));
    }

    #[test]
    fn a_failed_decision_survives_the_way_through_json() {
        let decision = Decision::Failed { error: Error::input("no such file").at("model") };
        let text = serde_json::to_string(&decision).unwrap();
        assert_eq!(serde_json::from_str::<Decision>(&text).unwrap(), decision);
    }
}
