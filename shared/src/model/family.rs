//! The decoder families that the forward pass knows, and how each names its parts.

use super::config::Fields;
use crate::{Error, Result};

/// A family of decoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 1 to 3 and everything that borrows its architecture.
    Llama,
    /// Mistral: Llama with an optional attention window.
    Mistral,
    /// Qwen2: Llama with biases on q, k and v.
    Qwen2,
    /// Qwen3: Llama with a norm on every query and key head.
    Qwen3,
    /// Qwen3-MoE: Qwen3 with routed experts in place of the MLP of some or all layers.
    Qwen3Moe,
    /// Mixtral: Mistral with routed experts in place of every MLP.
    Mixtral,
    /// Any other, told from the names of its tensors: it can be planned, not run.
    Other,
}

impl Family {
    const ALL: [(&'static str, &'static str, Self); 6] = [
        ("llama", "LlamaForCausalLM", Self::Llama),
        ("mistral", "MistralForCausalLM", Self::Mistral),
        ("qwen2", "Qwen2ForCausalLM", Self::Qwen2),
        ("qwen3", "Qwen3ForCausalLM", Self::Qwen3),
        ("qwen3_moe", "Qwen3MoeForCausalLM", Self::Qwen3Moe),
        ("mixtral", "MixtralForCausalLM", Self::Mixtral),
    ];

    /// The family that `model_type` and `architectures` name.
    pub(super) fn of(fields: &Fields<'_>) -> Result<Self> {
        let known = || Self::ALL.map(|(name, _, _)| format!("`{name}`")).join(", ");
        let kind = fields.text("model_type")?.ok_or_else(|| {
            fields.error("model_type", "the key is missing").hint(format!("supported families: {}", known()))
        })?;
        let (_, class, family) =
            Self::ALL.into_iter().find(|(name, _, _)| *name == kind).ok_or_else(|| {
                fields
                    .error("model_type", format!("the model family `{kind}` is not supported"))
                    .hint(format!("supported families: {}", known()))
            })?;
        let classes = fields.get("architectures").and_then(serde_json::Value::as_array);
        let named = classes.and_then(|list| list.first()).and_then(serde_json::Value::as_str);
        match named {
            Some(named) if named != class => Err(fields
                .error("architectures", format!("`{named}` is not supported"))
                .hint(format!("of `{kind}` models, `{class}` is"))),
            _ => Ok(family),
        }
    }

    /// Key and value heads where the config does not say, as transformers has them.
    pub(super) const fn default_kv_heads(self, heads: usize) -> usize {
        match self {
            Self::Llama | Self::Other => heads,
            Self::Mistral | Self::Mixtral => 8,
            Self::Qwen2 | Self::Qwen3 => 32,
            Self::Qwen3Moe => 4,
        }
    }

    /// Whether query and key heads have norms of their own.
    pub const fn has_head_norms(self) -> bool {
        matches!(self, Self::Qwen3 | Self::Qwen3Moe)
    }

    /// Base of the rotary frequencies where the config does not say, as transformers has it.
    pub(super) const fn default_theta(self) -> f64 {
        match self {
            Self::Mixtral => 1_000_000.0,
            _ => 10_000.0,
        }
    }

    /// What checkpoints call the block of router and experts of a layer. transformers 5 calls it `mlp` in memory for every
    /// family, and gives it back its older name when it saves.
    pub const fn expert_block(self) -> &'static str {
        match self {
            Self::Mixtral => "block_sparse_moe",
            _ => "mlp",
        }
    }

    /// What checkpoints call an expert's gate, up and down projections.
    pub const fn expert_projections(self) -> [&'static str; 3] {
        match self {
            Self::Mixtral => ["w1", "w3", "w2"],
            _ => ["gate_proj", "up_proj", "down_proj"],
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3_moe",
            Self::Mixtral => "mixtral",
            Self::Other => "other",
        })
    }
}

/// What an unusable model says of itself.
pub(super) fn unusable(message: String, folder: &std::path::Path, tensor: &str) -> Error {
    Error::input(message)
        .at(folder)
        .key(tensor)
        .hint("`config.json` and the weights must belong to the same model: fetch it again")
}
