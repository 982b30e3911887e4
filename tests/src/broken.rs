//! Damages a good model folder in one stated way.

use std::path::Path;

use crate::checkpoint::{NamedTensor, write_safetensors};
use crate::random_model::{Specimen, specimens, tensors, write};

/// A good model that takes no time to quantize; the start of every damage.
pub fn specimen() -> Specimen {
    specimens().into_iter().find(|specimen| specimen.shards == 1 && !specimen.tied).expect("a plain specimen")
}

/// Writes the good model.
pub fn good_model(folder: &Path) {
    write(&specimen(), folder);
}

/// The tensor that damages are done to.
pub const VICTIM: &str = "model.layers.1.self_attn.q_proj.weight";

/// Writes the good model with one tensor changed.
pub fn model_with(folder: &Path, change: impl FnOnce(&mut NamedTensor)) {
    good_model(folder);
    let mut tensors = tensors(&specimen());
    change(tensors.iter_mut().find(|tensor| tensor.name == VICTIM).expect("the specimen has the tensor"));
    write_safetensors(&folder.join("model.safetensors"), &tensors);
}

/// Writes the good model with one key of its config changed.
pub fn model_with_config(folder: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    good_model(folder);
    let path = folder.join("config.json");
    let mut config = crate::places::read_json(&path);
    change(&mut config);
    std::fs::write(path, config.to_string()).expect("a writable folder");
}
