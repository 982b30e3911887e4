//! Sources that keep all experts of a layer in two fused tensors, or under a younger name: told as if each expert's linears
//! stood alone.
//!
//! transformers 5 computes with `experts.gate_up_proj` `[experts, 2 · inner, hidden]`, gates before ups, and
//! `experts.down_proj` `[experts, hidden, inner]`. Saving, it takes them apart again; checkpoints that were written as they lie
//! in memory keep them. A linear of one expert is a run of rows of such a tensor, and so a run of bytes of the file.

use super::family::unusable;
use super::{Experts, ModelConfig};
use crate::Result;
use crate::checkpoint::{CheckpointFiles, Header, TensorEntry};

/// The files of a model, with every expert's weight under its own name as `modules_of` has it.
///
/// # Errors
/// A fused tensor has a shape that the config rules out.
pub(super) fn taken_apart(files: CheckpointFiles, config: &ModelConfig) -> Result<CheckpointFiles> {
    let Some(experts) = &config.experts else { return Ok(files) };
    if !files.tensors().any(|tensor| place(&tensor.name, config).is_some()) {
        return Ok(files);
    }
    let CheckpointFiles { folder, mut headers, .. } = files;
    for header in &mut headers {
        let mut tensors = Vec::with_capacity(header.tensors.len());
        for tensor in std::mem::take(&mut header.tensors) {
            match place(&tensor.name, config) {
                None => tensors.push(tensor),
                Some(found) => tensors.extend(split(header, &tensor, found, (config, experts))?),
            }
        }
        header.tensors = tensors;
    }
    CheckpointFiles::from_headers(&folder, headers)
}

/// The layer's prefix and the rest of a tensor's name below the block of experts, where the name has to change.
pub(super) fn place<'a>(name: &'a str, config: &ModelConfig) -> Option<(&'a str, &'a str)> {
    let below = name.strip_prefix("model.layers.")?;
    let (layer, below) = below.split_once('.')?;
    config.experts_of(layer.parse().ok()?)?;
    let (block, rest) = below.split_once('.')?;
    let own = config.family.expert_block();
    if block != own && block != "mlp" {
        return None;
    }
    let prefix = &name[..name.len() - below.len()];
    (block != own || part(rest).is_some()).then_some((prefix, rest))
}

/// Which projections a fused tensor holds, by their places in `Family::expert_projections`.
fn part(rest: &str) -> Option<&'static [usize]> {
    match rest.strip_suffix(".weight").unwrap_or(rest) {
        "experts.gate_up_proj" => Some(&[0, 1]),
        "experts.down_proj" => Some(&[2]),
        _ => None,
    }
}

/// The tensors that a tensor stands for.
fn split(
    header: &Header,
    tensor: &TensorEntry,
    (prefix, rest): (&str, &str),
    (config, experts): (&ModelConfig, &Experts),
) -> Result<Vec<TensorEntry>> {
    let block = format!("{prefix}{}", config.family.expert_block());
    let Some(parts) = part(rest) else {
        return Ok(vec![TensorEntry { name: format!("{block}.{rest}"), ..tensor.clone() }]);
    };
    let (hidden, inner) = (config.hidden_size, experts.intermediate_size);
    let [rows, columns] = if parts.len() == 1 { [hidden, inner] } else { [inner, hidden] };
    let expected = [experts.count, parts.len() * rows, columns];
    if tensor.shape != expected {
        let message = format!("wrong shape {:?}: the config says {expected:?}", tensor.shape);
        return Err(unusable(message, &header.path, &tensor.name));
    }
    let names = config.family.expert_projections();
    let length = tensor.length / (experts.count * parts.len()) as u64;
    let slots = (0..experts.count).flat_map(|expert| parts.iter().map(move |&part| (expert, part)));
    let entries = slots.zip(0u64..).map(|((expert, part), index)| TensorEntry {
        name: format!("{block}.experts.{expert}.{}.weight", names[part]),
        dtype: tensor.dtype,
        shape: vec![rows, columns],
        offset: tensor.offset + index * length,
        length,
    });
    Ok(entries.collect())
}
