//! What became known while pieces of a checkpoint were made, in words that another rank, or a later run, understands.

use std::collections::BTreeMap;

use qlaunch_shared::quality::Experts;
use qlaunch_shared::{Error, Result};
use serde::{Deserialize, Serialize};

use super::quality::Learnt;
use crate::quantize::{Errors, Remark};

/// What was learnt and written. Numbers that may be no JSON travel as their bits.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Tensors that are on the disk, with their digests where these are taken.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub written: Vec<(String, Option<String>)>,
    errors: Vec<(String, u64, Option<u64>, usize, usize)>,
    remarks: BTreeMap<String, Vec<Remark>>,
    experts: Option<Experts>,
}

impl Report {
    /// What was learnt, and what was written where nobody else sees it.
    pub fn of(learnt: &Learnt, written: Vec<(String, Option<String>)>) -> Self {
        let errors = learnt.errors.iter().map(|(name, errors)| {
            let output = errors.output.map(f64::to_bits);
            (name.clone(), errors.weight.to_bits(), output, errors.rows_measured, errors.rows)
        });
        Self {
            written,
            errors: errors.collect(),
            remarks: learnt.remarks.clone(),
            experts: learnt.experts.clone(),
        }
    }

    /// As bytes.
    ///
    /// # Errors
    /// None that input can cause.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::bug(format!("cannot tell what was learnt: {e}")))
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are something else.
    pub fn decode(message: &[u8]) -> Result<Self> {
        serde_json::from_slice(message)
            .map_err(|e| Error::bug(format!("cannot understand what was learnt: {e}")))
    }

    /// Adds it to what is known; in the order of layers.
    pub fn add_to(self, learnt: &mut Learnt) {
        learnt.errors.extend(self.errors.into_iter().map(|(name, weight, output, rows_measured, rows)| {
            let (weight, output) = (f64::from_bits(weight), output.map(f64::from_bits));
            (name, Errors { weight, output, rows_measured, rows })
        }));
        learnt.remarks.extend(self.remarks);
        if let Some(more) = self.experts {
            let known = learnt.experts.get_or_insert_with(Experts::default);
            known.layers.extend(more.layers);
            known.silent.extend(more.silent);
        }
    }
}
