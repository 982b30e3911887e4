//! All gates in order, over one subject.

use std::path::Path;

use serde_json::{Map, Value};

use super::{coverage, engines, metadata, scales, size, vision};
use crate::Result;
use crate::assign::Resolved;
use crate::checkpoint::CheckpointFiles;
use crate::model::{Model, read_json};
use crate::protocol::{Verdict, VerdictKind};

/// Names of the gates, in the order they are asked.
pub const GATES: [&str; 6] = ["size", "coverage", "scales", "metadata", "vision", "engines"];

/// What the gates look at.
pub struct Subject<'a> {
    /// The source model.
    pub source: &'a Model,
    /// What was planned.
    pub resolved: &'a Resolved,
    /// Headers of the checkpoint.
    pub files: CheckpointFiles,
    /// `config.json` of the checkpoint.
    pub config: Map<String, Value>,
}

impl<'a> Subject<'a> {
    /// Opens a checkpoint, as a loader would find it.
    ///
    /// # Errors
    /// Headers or config cannot be read.
    pub fn open(source: &'a Model, resolved: &'a Resolved, checkpoint: &Path) -> Result<Self> {
        Ok(Self {
            source,
            resolved,
            files: CheckpointFiles::open(checkpoint)?,
            config: read_json(checkpoint)?.1,
        })
    }
}

/// What a gate found: evidence for, and reasons against.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) evidence: Vec<String>,
    pub(super) faults: Vec<String>,
    pub(super) doubts: Vec<String>,
}

impl Findings {
    pub(super) fn note(&mut self, evidence: impl Into<String>) {
        self.evidence.push(evidence.into());
    }

    pub(super) fn fault(&mut self, reason: impl Into<String>) {
        self.faults.push(reason.into());
    }

    /// What leaves the question open, where no fault answers it.
    pub(super) fn doubt(&mut self, reason: impl Into<String>) {
        self.doubts.push(reason.into());
    }

    /// Faults make a gate fail; the first of them are its evidence, the rest is counted.
    fn verdict(mut self, gate: &str) -> Verdict {
        const SHOWN: usize = 12;
        let verdict = match (self.faults.is_empty(), self.doubts.is_empty()) {
            (false, _) => VerdictKind::Fail,
            (true, false) => VerdictKind::Indeterminate,
            (true, true) => VerdictKind::Pass,
        };
        let hidden = self.faults.len().saturating_sub(SHOWN);
        self.faults.truncate(SHOWN);
        self.evidence.extend(self.faults);
        self.evidence.extend(self.doubts);
        if hidden > 0 {
            self.evidence.push(format!("… and {hidden} more"));
        }
        Verdict { gate: gate.to_owned(), verdict, evidence: self.evidence }
    }
}

/// Whether a gate's verdict leaves nothing to be measured. A checkpoint that no engine loads can still be told how good
/// it would be.
pub fn forbids_evaluation(verdict: &Verdict) -> bool {
    verdict.verdict == VerdictKind::Fail && verdict.gate != "engines"
}

/// Asks every gate about a checkpoint.
///
/// A checkpoint that cannot even be opened fails them all, with the reason as evidence.
pub fn audit(source: &Model, resolved: &Resolved, checkpoint: &Path) -> Vec<Verdict> {
    let subject = match Subject::open(source, resolved, checkpoint) {
        Ok(subject) => subject,
        Err(error) => {
            let evidence = vec![error.to_string()];
            let fail = |gate: &str| Verdict {
                gate: gate.to_owned(),
                verdict: VerdictKind::Fail,
                evidence: evidence.clone(),
            };
            return GATES.map(fail).to_vec();
        }
    };
    let checks: [fn(&Subject<'_>) -> Findings; 6] =
        [size::check, coverage::check, scales::check, metadata::check, vision::check, engines::check];
    GATES.iter().zip(checks).map(|(gate, check)| check(&subject).verdict(gate)).collect()
}
