//! Production of a checkpoint: layer by layer, from the source's weights and what calibration learnt to written tensors.
//!
//! Memory is one layer and its codes, never the model.

use std::collections::BTreeMap;

use qlaunch_shared::assign::{Assignment, ModuleTensors, Piece, Resolved};
use qlaunch_shared::quality::{Experts, SilentExpert};
use qlaunch_shared::{Error, Result};
use rayon::prelude::*;

use super::companions::{Companion, companions};
use super::inputs::{cache_part, set_input_amax};
use super::quality::Learnt;
use super::remarks::{remark_on_silent, remark_on_zeros};
use crate::calibrate::Statistics;
use crate::network::{SourceWeights, Weights};
use crate::ops::Coder;
use crate::quantize::algorithm::calibrate;
use crate::quantize::{
    LinearWork, Origin, StoredBytes, fold, measure_errors, share_before_search, share_for_export,
};
use crate::tensor::host::HostTensor;
use crate::tensor::{MappedCheckpoint, ShardFiles, leave_bytes};

/// Everything that a checkpoint is made from, statistics apart.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// Weights of the source.
    pub weights: &'a SourceWeights<'a>,
    /// The source's mapped files.
    pub files: &'a MappedCheckpoint,
    /// What was planned.
    pub resolved: &'a Resolved,
}

/// A checkpoint in the making.
pub struct Production<'a> {
    sources: Sources<'a>,
    assignment: &'a Assignment,
    /// What makes the codes, where not the host does.
    coder: Option<&'a dyn Coder>,
    /// What became known on the way, for the quality report.
    pub learnt: Learnt,
}

/// A finished layer, for those who go on with its quantized weights.
pub struct Finished {
    /// Its quantized linears.
    pub linears: Vec<LinearWork>,
}

impl<'a> Production<'a> {
    /// Nothing is made yet. `coder` makes the codes where there is one, else the host.
    ///
    /// # Errors
    /// There is nothing to quantize.
    pub fn new(sources: Sources<'a>, coder: Option<&'a dyn Coder>) -> Result<Self> {
        let assignment = sources.resolved.assignment.as_ref();
        let assignment = assignment.ok_or_else(|| Error::bug("there is nothing to quantize"))?;
        Ok(Self { sources, assignment, coder, learnt: Learnt::default() })
    }

    /// What it is made from.
    pub const fn sources(&self) -> Sources<'a> {
        self.sources
    }

    /// Quantizes a piece and writes its tensors to `files`.
    ///
    /// `progress` is told the bytes of each module written.
    ///
    /// # Errors
    /// A weight or an activation is not finite, or the disk is full.
    pub fn finish(
        &mut self,
        piece: Piece,
        (statistics, files): (&Statistics, &ShardFiles),
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Finished> {
        let model = self.sources.weights.model();
        let tensors = &self.sources.resolved.tensors;
        let planned: Vec<&ModuleTensors> =
            tensors.iter().filter(|own| Piece::of(own, model) == piece).collect();
        let mut linears = self.linears(&planned, statistics)?;
        let mut norms = self.norms(piece.layer(), &linears)?;
        share_before_search(&mut linears, model);
        for step in &self.assignment.calibration.steps {
            calibrate(step, &mut linears, statistics, model)?;
        }
        fold(&mut linears, &mut norms, model)?;
        share_for_export(&mut linears);
        let mut stored = self.stored(&linears, statistics)?;
        for own in planned {
            self.write(own, &mut stored, &norms, (statistics, files))?;
            progress(own.bytes())?;
        }
        for linear in &linears {
            if !linear.remarks.is_empty() {
                self.learnt.remarks.insert(linear.numerics.name.clone(), linear.remarks.clone());
            }
        }
        self.note_experts(piece, statistics);
        Ok(Finished { linears })
    }

    /// The files beside the weights, by name.
    ///
    /// # Errors
    /// The source's cannot be read.
    pub fn companions(&self) -> Result<Vec<Companion>> {
        companions(self.sources.weights.model(), self.assignment)
    }

    /// Notes the ledger of a layer's routed experts, where calibration data went through any.
    fn note_experts(&mut self, piece: Piece, statistics: &Statistics) {
        let Some((layer, tokens)) =
            piece.layer().and_then(|layer| Some((layer, statistics.routed.get(&layer)?)))
        else {
            return;
        };
        let known = self.learnt.experts.get_or_insert_with(Experts::default);
        known.layers.push((layer, tokens.clone()));
        let silent = statistics.silent.range((layer, 0)..=(layer, u32::MAX));
        known.silent.extend(silent.map(|(&(layer, expert), stand_in)| SilentExpert {
            layer,
            expert,
            policy: stand_in.name(),
        }));
    }

    fn linears(&self, planned: &[&ModuleTensors], statistics: &Statistics) -> Result<Vec<LinearWork>> {
        let numerics = planned.iter().filter_map(|own| self.assignment.linear(own.module?));
        let numerics: Vec<_> = numerics.cloned().collect();
        let weights = self.sources.weights;
        let mut linears: Vec<LinearWork> = numerics
            .into_par_iter()
            .map(|numerics| {
                let module = numerics.module;
                let mut linear = LinearWork::new(numerics, weights.weight(module)?, weights.bias(module)?)?;
                remark_on_zeros(&mut linear);
                Ok(linear)
            })
            .collect::<Result<_>>()?;
        set_input_amax(&mut linears, statistics, weights.model())?;
        remark_on_silent(&mut linears, statistics, weights.model());
        Ok(linears)
    }

    /// Weights of the norms that linears of the layer read, where smoothing may be folded into them.
    fn norms(&self, layer: Option<usize>, linears: &[LinearWork]) -> Result<BTreeMap<usize, HostTensor>> {
        use qlaunch_shared::assign::Smoothing;
        let folds = linears.iter().any(|linear| linear.numerics.smoothing == Smoothing::Folded);
        let (Some(layer), true) = (layer, folds) else { return Ok(BTreeMap::new()) };
        let model = self.sources.weights.model();
        ["input_layernorm", "post_attention_layernorm"]
            .into_iter()
            .map(|name| {
                let module = model.module(&format!("model.layers.{layer}.{name}"))?;
                Ok((module, self.sources.weights.weight(module)?))
            })
            .collect()
    }

    /// The tensors of all linears, by full name.
    fn stored(
        &mut self,
        linears: &[LinearWork],
        statistics: &Statistics,
    ) -> Result<BTreeMap<String, Vec<u8>>> {
        let parts: Vec<Vec<StoredBytes>> =
            linears.par_iter().map(|linear| linear.store(self.coder)).collect::<Result<_>>()?;
        let weights = self.sources.weights;
        let measured = linears.par_iter().zip(&parts).map(|(linear, parts)| {
            // What other experts saw says nothing of this one's output.
            let seen = statistics.inputs.get(&linear.numerics.module).filter(|seen| seen.tokens > 0);
            let gram = seen.and_then(|seen| seen.gram.as_deref().or(seen.rounded_gram.as_deref()));
            let gram = gram.map(|gram| gram.sums.as_slice());
            let row_factors = linear.row_factors.as_deref();
            let errors = weights.look(linear.numerics.module, |weight| {
                measure_errors(linear, parts, &Origin { weight, row_factors, gram })
            })?;
            weights.release(linear.numerics.module);
            Ok((linear.numerics.name.clone(), errors))
        });
        self.learnt.errors.extend(measured.collect::<Result<Vec<_>>>()?);
        let named = linears.iter().zip(parts).flat_map(|(linear, parts)| {
            let name = &linear.numerics.name;
            parts.into_iter().map(move |(suffix, bytes)| (format!("{name}.{suffix}"), bytes))
        });
        Ok(named.collect())
    }

    fn write(
        &self,
        own: &ModuleTensors,
        stored: &mut BTreeMap<String, Vec<u8>>,
        norms: &BTreeMap<usize, HostTensor>,
        (statistics, files): (&Statistics, &ShardFiles),
    ) -> Result<()> {
        let model = self.sources.weights.model();
        let part = own.module.map(|module| &model.modules[module]);
        let cache = part.and_then(|part| self.assignment.cache(part.layer?));
        let norm = own.module.and_then(|module| norms.get(&module));
        let dtype = model.config.dtype;
        for tensor in &own.tensors {
            let name = tensor.name.as_str();
            if let Some(bytes) = stored.remove(name) {
                files.write(name, &bytes)?;
                leave_bytes(bytes);
            } else if let (Some(norm), true) = (norm, name.ends_with(".weight")) {
                files.write(name, &norm.view().to_bytes())?;
            } else if let Some(bytes) =
                cache.map_or(Ok(None), |cache| cache_part(cache, name, (statistics, dtype)))?
            {
                files.write(name, &bytes)?;
            } else {
                files.write(name, self.sources.files.tensor(name)?.bytes)?;
                self.sources.files.release(name);
            }
        }
        Ok(())
    }
}
