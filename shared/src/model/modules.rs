//! What a module of a decoder is: its name, its tensors' shapes, and which modules read the same input.

use std::sync::Arc;

use super::{Part, Projection};

/// A module that owns tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Full name in checkpoints, as in `model.layers.0.self_attn.q_proj`; that of an expert's linear names the expert, as
    /// in `model.layers.0.mlp.experts.3.gate_proj`.
    pub name: String,
    /// What it does.
    pub role: ModuleRole,
    /// Decoder layer that it belongs to.
    pub layer: Option<usize>,
    /// Part of the decoder that it belongs to.
    pub part: Part,
    /// Which projection of its part it is, where it is one.
    pub projection: Option<Projection>,
    /// What transformers calls the module that holds all experts of the layer, where this belongs to one of them.
    pub container: Option<Arc<str>>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FusedGroup {
    /// q_proj, k_proj, v_proj.
    Qkv,
    /// gate_proj, up_proj.
    GateUp,
    /// gate_proj and up_proj of this routed expert.
    Expert(u32),
    /// in_proj_qkv, in_proj_z of linear attention.
    LinearInputs,
    /// in_proj_a, in_proj_b of linear attention.
    LinearGates,
}

impl FusedGroup {
    /// The name that errors use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qkv => "q/k/v",
            Self::GateUp => "gate/up",
            Self::Expert(_) => "expert's gate/up",
            Self::LinearInputs => "in_proj_qkv/z",
            Self::LinearGates => "in_proj_a/b",
        }
    }
}

impl ModuleRole {
    /// A linear of `rows` outputs and `columns` inputs that shares its input with nobody.
    pub const fn linear(rows: usize, columns: usize) -> Self {
        Self::Linear { rows, columns, group: None }
    }

    /// Shape of the weight; `None` where there is none.
    pub fn weight_shape(self) -> Option<Vec<usize>> {
        match self {
            Self::Linear { rows, columns, .. } | Self::Embedding { rows, columns } => {
                Some(vec![rows, columns])
            }
            Self::Norm { width } => Some(vec![width]),
            Self::Attention => None,
        }
    }
}

impl Module {
    /// A module that is no projection and belongs to no expert.
    pub fn new(name: impl Into<String>, role: ModuleRole, part: Part) -> Self {
        Self { name: name.into(), role, layer: None, part, projection: None, container: None }
    }

    /// Whether it is a linear; routers are, in the forward pass.
    pub const fn is_linear(&self) -> bool {
        matches!(self.role, ModuleRole::Linear { .. })
    }
}
