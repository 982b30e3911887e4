//! `config.json` of a random model, in either spelling.

use serde_json::{Map, Value, json};

use super::specimen::{Family, Mixture, Rope, Specimen, Spelling, VOCABULARY};

/// The whole config.
pub(super) fn config(specimen: &Specimen) -> Value {
    let (class, kind) = match specimen.family {
        Family::Llama => ("LlamaForCausalLM", "llama"),
        Family::Mistral => ("MistralForCausalLM", "mistral"),
        Family::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
        Family::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
        Family::Qwen3Moe => ("Qwen3MoeForCausalLM", "qwen3_moe"),
        Family::Mixtral => ("MixtralForCausalLM", "mixtral"),
    };
    let mut config = json!({
        "architectures": [class],
        "model_type": kind,
        "hidden_size": specimen.hidden,
        "intermediate_size": specimen.mlp,
        "num_hidden_layers": specimen.layers,
        "num_attention_heads": specimen.heads,
        "num_key_value_heads": specimen.kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 1024,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": specimen.tied,
        "bos_token_id": 0,
        "eos_token_id": 1,
    });
    let entries = config.as_object_mut().expect("an object");
    if specimen.head_dim * specimen.heads != specimen.hidden {
        entries.insert("head_dim".into(), specimen.head_dim.into());
    }
    match specimen.family {
        Family::Llama => {
            entries.extend([("attention_bias".into(), false.into()), ("mlp_bias".into(), false.into())])
        }
        Family::Mistral => {
            entries.insert("sliding_window".into(), specimen.window.unwrap_or(4096).into());
        }
        Family::Mixtral => {
            entries.insert("sliding_window".into(), specimen.window.into());
        }
        Family::Qwen2 => entries.extend([("use_sliding_window".into(), false.into())]),
        Family::Qwen3 | Family::Qwen3Moe => {
            // Qwen3's default is 128, not hidden / heads: it is always written.
            entries.insert("head_dim".into(), specimen.head_dim.into());
            entries.insert("attention_bias".into(), false.into());
        }
    }
    if let Some(mixture) = &specimen.mixture {
        add_experts(specimen, mixture, entries);
    }
    add_rope_and_dtype(specimen, entries);
    config
}

/// The keys of a mixture of experts.
fn add_experts(specimen: &Specimen, mixture: &Mixture, entries: &mut Map<String, Value>) {
    let count = match (specimen.family, specimen.spelling) {
        (Family::Qwen3Moe, Spelling::Old) => "num_experts",
        _ => "num_local_experts",
    };
    entries.insert(count.into(), mixture.experts.into());
    entries.insert("num_experts_per_tok".into(), mixture.per_token.into());
    if specimen.family == Family::Mixtral {
        entries.insert("intermediate_size".into(), mixture.width.into());
        return;
    }
    entries.insert("moe_intermediate_size".into(), mixture.width.into());
    entries.insert("norm_topk_prob".into(), mixture.normalised.into());
    entries.insert("decoder_sparse_step".into(), mixture.step.into());
    entries.insert("mlp_only_layers".into(), mixture.dense_layers.into());
}

/// The keys that the two spellings write differently.
fn add_rope_and_dtype(specimen: &Specimen, entries: &mut Map<String, Value>) {
    let (kind, scaling) = match specimen.rope {
        Rope::Plain => ("default", json!({})),
        Rope::Linear { factor } => ("linear", json!({"factor": factor})),
        Rope::Llama3 { factor, original } => (
            "llama3",
            json!({"factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": original}),
        ),
        Rope::Yarn { factor, original } => {
            ("yarn", json!({"factor": factor, "original_max_position_embeddings": original}))
        }
    };
    let mut scaling = scaling.as_object().cloned().expect("an object");
    if specimen.spelling == Spelling::New {
        scaling.insert("rope_theta".into(), specimen.theta.into());
        scaling.insert("rope_type".into(), kind.into());
        entries.insert("rope_parameters".into(), scaling.into());
        entries.insert("dtype".into(), "bfloat16".into());
        return;
    }
    entries.insert("rope_theta".into(), specimen.theta.into());
    entries.insert("torch_dtype".into(), "bfloat16".into());
    let scaling = if matches!(specimen.rope, Rope::Plain) {
        Value::Null
    } else {
        // `linear` checkpoints are old enough to say `type`; `llama3` came with `rope_type`.
        let key = if matches!(specimen.rope, Rope::Linear { .. }) { "type" } else { "rope_type" };
        scaling.insert(key.into(), kind.into());
        scaling.into()
    };
    entries.insert("rope_scaling".into(), scaling);
}
