//! A small Llama on disk for tests: real headers, tensors of zeros.

use std::path::Path;

use serde_json::{Value, json};

use super::config::ModelConfig;
use super::{ModuleRole, modules_of};
use crate::checkpoint::{DType, Layout, PlannedTensor};

/// `config.json` of two layers, hidden 32, MLP 64, two heads of 16 on one KV head, vocabulary 48.
pub(crate) fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 48, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": false
    })
}

/// Writes a model folder for a config.
pub(crate) fn write(folder: &Path, config: &Value) {
    let path = folder.join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let parsed = ModelConfig::parse(&path, config.as_object().unwrap()).unwrap();
    let mut tensors = Vec::new();
    for module in modules_of(&parsed) {
        let shape = match module.role {
            ModuleRole::Linear { rows, columns, .. } | ModuleRole::Embedding { rows, columns } => {
                vec![rows, columns]
            }
            ModuleRole::Norm { width } => vec![width],
            ModuleRole::Attention => continue,
        };
        if !(parsed.tied && module.name == "lm_head") {
            tensors.push(PlannedTensor {
                name: format!("{}.weight", module.name),
                dtype: DType::BF16,
                shape,
            });
        }
    }
    let layout = Layout::plan(&tensors, u64::MAX, &Default::default()).unwrap();
    let shard = &layout.shards[0];
    let mut bytes = shard.header.clone();
    bytes.resize(shard.bytes as usize, 0);
    std::fs::write(folder.join(&shard.file), bytes).unwrap();
}
