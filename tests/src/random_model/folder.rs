//! A random model as a folder that any program of the field loads.

use std::path::Path;

use super::config::config;
use super::specimen::Specimen;
use super::weights::tensors;
use crate::checkpoint::{write_safetensors, write_sharded};

/// Writes weights, config, and the example's tokenizer.
pub fn write(specimen: &Specimen, folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder that can be made");
    let tensors = tensors(specimen);
    if specimen.shards > 1 {
        write_sharded(folder, &tensors, specimen.shards);
    } else {
        write_safetensors(&folder.join("model.safetensors"), &tensors);
    }
    let text = serde_json::to_string_pretty(&config(specimen)).expect("a config is JSON");
    std::fs::write(folder.join("config.json"), text).expect("a writable folder");
    for name in
        ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"]
    {
        std::fs::copy(crate::places::tiny_llama().join(name), folder.join(name))
            .expect("a tokenizer to copy");
    }
}
