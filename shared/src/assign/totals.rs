//! A checkpoint in figures, from its tensors' names and sizes alone. Definitions: `docs/portfolio.md`.

use super::{Assignment, ModuleTensors, Totals};
use crate::checkpoint::{DType, PlannedTensor};
use crate::model::{Model, Module, ModuleRole};

impl Totals {
    /// Figures of a checkpoint with these tensors, whose files have `bytes` in all.
    pub fn of(model: &Model, assignment: Option<&Assignment>, tensors: &[ModuleTensors], bytes: u64) -> Self {
        let source_bytes = model.files.bytes();
        let (mut stored_bits, mut elements, mut multiplied, mut products) = (0.0, 0.0, 0.0, 0.0);
        let mut active = 0.0;
        // Both stand in module order.
        let mut rest = tensors.iter().peekable();
        for (module, part) in model.modules.iter().enumerate() {
            let own = rest.next_if(|own| own.module == Some(module)).map_or(&[][..], |own| &own.tensors);
            let share = share_per_token(model, part);
            active += active_bytes(model, part, own) as f64 * share;
            if let ModuleRole::Linear { rows, columns, .. } = part.role {
                let count = (rows * columns) as f64;
                elements += count;
                multiplied += count * share;
                stored_bits += 8.0 * weight_bytes(model, part, own) as f64;
                products += share * count * bits_per_multiply(model.config.dtype, assignment, module);
            }
        }
        Self {
            bytes,
            source_bytes,
            ratio: bytes as f64 / source_bytes as f64,
            effective_bits: stored_bits / elements,
            active_bytes_per_token: active.round() as u64,
            // bf16 × bf16 is the unit.
            compute: products / (multiplied * 256.0),
            parameters: model.parameters(),
        }
    }
}

/// Which share of the tokens goes through a module: routed experts see theirs only.
fn share_per_token(model: &Model, part: &Module) -> f64 {
    match (&model.config.experts, part.expert()) {
        (Some(experts), Some(_)) => experts.per_token as f64 / experts.count as f64,
        _ => 1.0,
    }
}

/// Bytes of a linear's weight and the weight's scales. A tied head reads the embedding's table.
fn weight_bytes(model: &Model, part: &Module, own: &[PlannedTensor]) -> u64 {
    if model.is_tied_head(part) {
        return model.weight(part).map_or(0, |weight| weight.length);
    }
    let is_weight = |tensor: &&PlannedTensor| {
        let suffix = tensor.name.rsplit('.').next().unwrap_or_default();
        matches!(suffix, "weight" | "weight_scale" | "weight_scale_2")
    };
    own.iter().filter(is_weight).map(PlannedTensor::bytes).sum()
}

/// Bytes read for one token: all of a linear or norm, one row of an embedding, nothing of the KV cache.
fn active_bytes(model: &Model, part: &Module, own: &[PlannedTensor]) -> u64 {
    let is_cache_scale = |name: &str| name.ends_with(".k_scale") || name.ends_with(".v_scale");
    match part.role {
        ModuleRole::Embedding { columns, .. } => (columns * model.config.dtype.size()) as u64,
        ModuleRole::Linear { .. } if model.is_tied_head(part) => weight_bytes(model, part, own),
        _ => own.iter().filter(|t| !is_cache_scale(&t.name)).map(PlannedTensor::bytes).sum(),
    }
}

fn bits_per_multiply(dtype: DType, assignment: Option<&Assignment>, module: usize) -> f64 {
    let plain = (8 * dtype.size()) as u32;
    let linear = assignment.and_then(|a| a.linear(module));
    let weight = linear.map_or(plain, |linear| linear.weight.bits());
    let input = linear.and_then(|linear| linear.input).map_or(plain, |input| input.format.bits());
    f64::from(weight) * f64::from(input)
}
