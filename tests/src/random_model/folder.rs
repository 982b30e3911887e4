//! A random model as a folder that any program of the field loads.

use std::path::Path;

use serde_json::Value;

use super::config::config;
use super::specimen::Specimen;
use super::weights::tensors;
use crate::checkpoint::{NamedTensor, write_safetensors, write_sharded};

/// Writes weights, config, and the example's tokenizer.
pub fn write(specimen: &Specimen, folder: &Path) {
    write_with(specimen, folder, &tensors(specimen), config(specimen));
}

/// Writes the same weights in f32, in which two right programs agree to many digits.
pub fn write_wide(specimen: &Specimen, folder: &Path) {
    let mut config = config(specimen);
    for key in ["dtype", "torch_dtype"] {
        if let Some(dtype) = config.get_mut(key) {
            *dtype = "float32".into();
        }
    }
    let tensors: Vec<NamedTensor> = tensors(specimen).into_iter().map(widened).collect();
    write_with(specimen, folder, &tensors, config);
}

fn widened(tensor: NamedTensor) -> NamedTensor {
    let values = tensor.bytes.chunks_exact(2).map(|bytes| half::bf16::from_le_bytes([bytes[0], bytes[1]]));
    let bytes = values.flat_map(|value| value.to_f32().to_le_bytes()).collect();
    NamedTensor { dtype: "F32", bytes, ..tensor }
}

fn write_with(specimen: &Specimen, folder: &Path, tensors: &[NamedTensor], config: Value) {
    std::fs::create_dir_all(folder).expect("a folder that can be made");
    if specimen.shards > 1 {
        write_sharded(folder, tensors, specimen.shards);
    } else {
        write_safetensors(&folder.join("model.safetensors"), tensors);
    }
    let text = serde_json::to_string_pretty(&config).expect("a config is JSON");
    std::fs::write(folder.join("config.json"), text).expect("a writable folder");
    for name in
        ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"]
    {
        std::fs::copy(crate::places::tiny_llama().join(name), folder.join(name))
            .expect("a tokenizer to copy");
    }
}
