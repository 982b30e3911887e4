//! Which tensors a checkpoint will have, told from an assignment before anything is computed.

use std::collections::BTreeMap;

use super::assignment::{ActivationNumerics, Amax, Smoothing};
use super::{Assignment, Piece};
use crate::checkpoint::{DType, Layout, PlannedTensor};
use crate::model::{Model, Module, ModuleRole, Part, Projection};
use crate::numerics::{Format, StoredPart};
use crate::{Error, Result};

/// The tensors of one module of a checkpoint.
#[derive(Debug, Clone)]
pub struct ModuleTensors {
    /// Index into the model's modules; `None` for tensors that no module owns.
    pub module: Option<usize>,
    /// Its tensors.
    pub tensors: Vec<PlannedTensor>,
}

impl ModuleTensors {
    /// Bytes of all its tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(PlannedTensor::bytes).sum()
    }
}

/// The tensors of a checkpoint in module order; `None` is the model as it is.
///
/// # Errors
/// A weight of the source is missing.
pub fn checkpoint_tensors(model: &Model, assignment: Option<&Assignment>) -> Result<Vec<ModuleTensors>> {
    let mut all = Vec::with_capacity(model.modules.len() + 1);
    for (module, part) in model.modules.iter().enumerate() {
        let tensors = module_tensors(model, assignment, module, part)?;
        if !tensors.is_empty() {
            all.push(ModuleTensors { module: Some(module), tensors });
        }
    }
    let strangers: Result<Vec<PlannedTensor>> =
        model.strangers.iter().map(|name| model.files.tensor(name).map(as_it_is)).collect();
    let strangers = strangers?;
    if !strangers.is_empty() {
        all.push(ModuleTensors { module: None, tensors: strangers });
    }
    Ok(all)
}

fn module_tensors(
    model: &Model,
    assignment: Option<&Assignment>,
    module: usize,
    part: &Module,
) -> Result<Vec<PlannedTensor>> {
    if matches!(part.role, ModuleRole::Attention) || model.is_tied_head(part) {
        return Ok(Vec::new());
    }
    let named =
        |suffix: &str, dtype, shape| PlannedTensor { name: format!("{}.{suffix}", part.name), dtype, shape };
    let scalar = |suffix: &str| named(suffix, DType::F32, Vec::new());
    let mut tensors = Vec::new();
    match (part.role, assignment.and_then(|a| a.linear(module))) {
        (ModuleRole::Linear { rows, columns, .. }, Some(linear)) => {
            let dtype = model.config.dtype;
            let parts = linear.weight.weight_parts(rows, columns, dtype);
            let is_cut_out =
                matches!(part.part, Part::Expert(_)) && part.projection != Some(Projection::Down);
            let shape = |p: &StoredPart| match (linear.weight, &p.shape[..], p.suffix) {
                // ModelOpt cuts the squares of gate and up out of a fused tensor's, and does not squeeze them afterwards.
                (Format::Fp8Block { .. }, [], "weight_scale") if is_cut_out => vec![1; 4],
                _ => p.shape.clone(),
            };
            tensors.extend(parts.iter().map(|p| named(p.suffix, p.dtype, shape(p))));
            if linear.smoothing == Smoothing::Stored {
                tensors.push(named("pre_quant_scale", dtype, vec![columns]));
            }
            if let Some(rank) = linear.low_rank {
                tensors.push(named("weight_quantizer._svdquant_lora_a", dtype, vec![rank, columns]));
                tensors.push(named("weight_quantizer._svdquant_lora_b", dtype, vec![rows, rank]));
            }
            let stored = linear.input.filter(|input| input.amax != Amax::Dynamic);
            tensors.extend(stored.map(|_| scalar("input_scale")));
        }
        _ => tensors.push(as_it_is(model.weight(part).ok_or_else(|| missing(model, part))?)),
    }
    tensors.extend(model.bias(part).map(as_it_is));
    if let Some(([scale, offset], numerics)) = cache_of(assignment, part) {
        tensors.extend((numerics.amax != Amax::Unit).then(|| scalar(scale)));
        let heads = vec![1, model.config.kv_heads, 1, model.config.head_dim];
        tensors.extend(numerics.offset.map(|_| named(offset, model.config.dtype, heads)));
    }
    Ok(tensors)
}

/// What fills the KV cache has its scale, and its offset `[1, heads, 1, head_dim]`, stored beside it.
fn cache_of(
    assignment: Option<&Assignment>,
    part: &Module,
) -> Option<([&'static str; 2], ActivationNumerics)> {
    let cache = assignment?.cache(part.layer?)?;
    match part.name.rsplit('.').next() {
        Some("k_proj") => Some((["k_scale", "k_bias"], cache.key)),
        Some("v_proj") => Some((["v_scale", "v_bias"], cache.value)),
        _ => None,
    }
}

fn as_it_is(tensor: &crate::checkpoint::TensorEntry) -> PlannedTensor {
    PlannedTensor { name: tensor.name.clone(), dtype: tensor.dtype, shape: tensor.shape.clone() }
}

fn missing(model: &Model, part: &Module) -> Error {
    Error::input("the weight is missing").at(&model.folder).key(part.name.as_str())
}

/// How tensors are distributed over files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// As few files as the largest size allows.
    BySize,
    /// No file has tensors of two [`Piece`]s, so that checkpoints can share them.
    ByPiece,
}

/// The layout of a checkpoint's weight files.
///
/// # Errors
/// As [`Layout::plan`].
pub fn checkpoint_layout(
    model: &Model,
    tensors: &[ModuleTensors],
    (shard_bytes, grouping): (u64, Grouping),
) -> Result<Layout> {
    let metadata = BTreeMap::from([
        // Loaders expect the framework's name; ours stands beside it.
        ("format".to_owned(), "pt".to_owned()),
        ("producer".to_owned(), format!("qlaunch {}", env!("CARGO_PKG_VERSION"))),
    ]);
    let planned = |own: &ModuleTensors| own.tensors.clone();
    let groups: Vec<Vec<PlannedTensor>> = match grouping {
        Grouping::BySize => vec![tensors.iter().flat_map(planned).collect()],
        Grouping::ByPiece => {
            let mut groups: BTreeMap<Piece, Vec<PlannedTensor>> =
                Piece::all(model.config.layers).map(|piece| (piece, Vec::new())).collect();
            for own in tensors {
                groups.entry(Piece::of(own, model)).or_default().extend(planned(own));
            }
            groups.into_values().collect()
        }
    };
    Layout::plan_groups(&groups, shard_bytes, &metadata)
}
