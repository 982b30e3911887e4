//! A checkpoint that several ranks make: each writes its layers, and the first one hears what became of them.

use std::collections::BTreeMap;

use qlaunch_shared::assign::ModuleTensors;
use qlaunch_shared::model::{Model, ModuleRole};
use qlaunch_shared::quality::Experts;
use qlaunch_shared::{Error, Result};
use serde::{Deserialize, Serialize};

use super::quality::Learnt;
use crate::quantize::{Errors, Remark};
use crate::tensor::Writer;

/// Which of the modules outside of decoder layers a rank writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The embedding, and tensors that no module owns.
    pub first: bool,
    /// The final norm and the output head.
    pub last: bool,
}

impl Share {
    /// Those of a job that is one process.
    pub const WHOLE: Self = Self { first: true, last: true };

    /// Whether tensors that stand outside of layers are of this share.
    pub fn has(self, own: &ModuleTensors, model: &Model) -> bool {
        let is_first = own
            .module
            .is_none_or(|module| matches!(model.modules[module].role, ModuleRole::Embedding { .. }));
        if is_first { self.first } else { self.last }
    }
}

/// What one rank did, in words that any rank understands. Numbers that may be no JSON travel as their bits.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    /// Tensors that are on the disk.
    written: Vec<String>,
    errors: Vec<(String, u64, Option<u64>, usize, usize)>,
    remarks: BTreeMap<String, Vec<Remark>>,
    experts: Option<Experts>,
}

impl Report {
    /// What this rank wrote and learnt.
    pub(super) fn of(writer: &Writer, learnt: &Learnt) -> Result<Self> {
        let errors = learnt.errors.iter().map(|(name, errors)| {
            let output = errors.output.map(f64::to_bits);
            (name.clone(), errors.weight.to_bits(), output, errors.rows_measured, errors.rows)
        });
        Ok(Self {
            written: writer.sync()?,
            errors: errors.collect(),
            remarks: learnt.remarks.clone(),
            experts: learnt.experts.clone(),
        })
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::bug(format!("cannot tell what a rank did: {e}")))
    }

    pub(super) fn decode(message: &[u8]) -> Result<Self> {
        serde_json::from_slice(message)
            .map_err(|e| Error::bug(format!("cannot understand what a rank did: {e}")))
    }

    /// Adds it to what the first rank did; reports come in the order of ranks, and so of layers.
    pub(super) fn add_to(self, writer: &Writer, learnt: &mut Learnt) -> Result<()> {
        self.written.iter().try_for_each(|name| writer.count(name))?;
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
        Ok(())
    }
}
