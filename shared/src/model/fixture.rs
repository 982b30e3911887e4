//! A small Llama on disk for tests: real headers, tensors of zeros.

use std::path::Path;

use serde_json::{Value, json};

use super::config::ModelConfig;
use super::modules_of;
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

/// `config.json` of a Qwen3-MoE of the same sizes: three experts of width 24, two for each token.
pub(crate) fn qwen3_moe() -> Value {
    let mut config = config();
    let entries = json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "head_dim": 16, "num_experts": 3,
        "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": true
    });
    merge(&mut config, entries);
    config
}

/// `config.json` of a Mixtral of the same sizes: three experts of width 64, two for each token.
pub(crate) fn mixtral() -> Value {
    let mut config = config();
    let entries = json!({
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 3,
        "num_experts_per_tok": 2
    });
    merge(&mut config, entries);
    config
}

fn merge(config: &mut Value, entries: Value) {
    if let (Value::Object(config), Value::Object(entries)) = (config, entries) {
        config.extend(entries);
    }
}

/// Writes a model folder for a config.
pub(crate) fn write(folder: &Path, config: &Value) {
    let path = folder.join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let parsed = ModelConfig::parse(&path, config.as_object().unwrap()).unwrap();
    let mut tensors = Vec::new();
    for module in modules_of(&parsed) {
        let Some(shape) = module.role.weight_shape() else { continue };
        if !(parsed.tied && module.name == "lm_head") {
            tensors.push(PlannedTensor {
                name: format!("{}.weight", module.name),
                dtype: DType::BF16,
                shape,
            });
        }
    }
    write_tensors(folder, &tensors);
}

/// Writes weights of zeros.
pub(crate) fn write_tensors(folder: &Path, tensors: &[PlannedTensor]) {
    let layout = Layout::plan(tensors, u64::MAX, &Default::default()).unwrap();
    let shard = &layout.shards[0];
    let mut bytes = shard.header.clone();
    bytes.resize(shard.bytes as usize, 0);
    std::fs::write(folder.join(&shard.file), bytes).unwrap();
}
