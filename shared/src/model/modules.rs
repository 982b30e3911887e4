//! The modules of a decoder in the order that PyTorch walks them, and which of them share one input.

use super::ModelConfig;

/// A module that owns tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Full name, as in `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// What it does.
    pub role: ModuleRole,
    /// Decoder layer that it belongs to.
    pub layer: Option<usize>,
}

/// What a module does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleRole {
    /// `y = x Wᵀ + b` with a weight of `[rows, columns]`.
    Linear {
        /// Output features.
        rows: usize,
        /// Input features.
        columns: usize,
        /// Set where several linears read the same input and serve as one matrix.
        group: Option<FusedGroup>,
    },
    /// A table of `[rows, columns]`.
    Embedding {
        /// Tokens.
        rows: usize,
        /// Width.
        columns: usize,
    },
    /// A norm with a weight of `[width]`.
    Norm {
        /// Width.
        width: usize,
    },
    /// Self-attention: owner of the KV cache; has no tensors itself.
    Attention,
}

/// Linears of one layer that read the same input; serving engines fuse them into one matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FusedGroup {
    /// q_proj, k_proj, v_proj.
    Qkv,
    /// gate_proj, up_proj.
    GateUp,
}

impl FusedGroup {
    /// The name that errors use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qkv => "q/k/v",
            Self::GateUp => "gate/up",
        }
    }
}

impl Module {
    /// Whether it is a linear.
    pub const fn is_linear(&self) -> bool {
        matches!(self.role, ModuleRole::Linear { .. })
    }
}

/// All modules of a model, attentions included, in PyTorch's order.
pub fn modules_of(config: &ModelConfig) -> Vec<Module> {
    let embedding = ModuleRole::Embedding { rows: config.vocabulary, columns: config.hidden_size };
    let head = ModuleRole::Linear { rows: config.vocabulary, columns: config.hidden_size, group: None };
    let norm = ModuleRole::Norm { width: config.hidden_size };
    let mut modules = vec![Module { name: "model.embed_tokens".to_owned(), role: embedding, layer: None }];
    for layer in 0..config.layers {
        modules.extend(layer_modules(config, layer));
    }
    modules.push(Module { name: "model.norm".to_owned(), role: norm, layer: None });
    modules.push(Module { name: "lm_head".to_owned(), role: head, layer: None });
    modules
}

fn layer_modules(config: &ModelConfig, layer: usize) -> Vec<Module> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (query, key) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let linear = |rows, columns, group| ModuleRole::Linear { rows, columns, group };
    let mut parts = vec![
        ("self_attn", ModuleRole::Attention),
        ("self_attn.q_proj", linear(query, hidden, Some(FusedGroup::Qkv))),
        ("self_attn.k_proj", linear(key, hidden, Some(FusedGroup::Qkv))),
        ("self_attn.v_proj", linear(key, hidden, Some(FusedGroup::Qkv))),
        ("self_attn.o_proj", linear(hidden, query, None)),
    ];
    if config.family.has_head_norms() {
        parts.push(("self_attn.q_norm", ModuleRole::Norm { width: config.head_dim }));
        parts.push(("self_attn.k_norm", ModuleRole::Norm { width: config.head_dim }));
    }
    parts.extend([
        ("mlp.gate_proj", linear(inner, hidden, Some(FusedGroup::GateUp))),
        ("mlp.up_proj", linear(inner, hidden, Some(FusedGroup::GateUp))),
        ("mlp.down_proj", linear(hidden, inner, None)),
        ("input_layernorm", ModuleRole::Norm { width: hidden }),
        ("post_attention_layernorm", ModuleRole::Norm { width: hidden }),
    ]);
    let module = |(part, role): (&str, ModuleRole)| Module {
        name: format!("model.layers.{layer}.{part}"),
        role,
        layer: Some(layer),
    };
    parts.into_iter().map(module).collect()
}
