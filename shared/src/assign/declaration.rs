//! What a checkpoint of an assignment will declare of itself.

use super::{Assignment, CacheNumerics};
use crate::checkpoint::QuantizationConfig;
use crate::model::{Model, ModuleRole};

/// The declaration of a checkpoint: quantized linears, linears and embeddings that are not, and the KV cache.
pub fn quantization_config(model: &Model, assignment: &Assignment) -> QuantizationConfig {
    let could_be = |role| matches!(role, ModuleRole::Linear { .. } | ModuleRole::Embedding { .. });
    let excluded = model
        .modules
        .iter()
        .enumerate()
        .filter(|(module, part)| could_be(part.role) && assignment.linear(*module).is_none())
        .map(|(_, part)| part.name.clone());
    QuantizationConfig {
        layers: assignment.linears.iter().map(|linear| (linear.name.clone(), linear.algorithm())).collect(),
        excluded: excluded.collect(),
        kv_cache: assignment.caches.first().map(CacheNumerics::algorithm),
    }
}
