//! Parts of a model as plans report them.

use serde::{Deserialize, Serialize};

use crate::model::{Module, Part};

/// A part of a model that recipes treat alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModuleFamily {
    /// Projections of self-attention and linear attention.
    Attention,
    /// Dense feed-forward layers.
    Mlp,
    /// Routed experts.
    Experts,
    /// Experts that see every token.
    SharedExpert,
    /// Whatever chooses experts.
    Router,
    /// The output head.
    Head,
    /// Tables of token vectors.
    Embedding,
    /// Everything that looks at images, and what brings it to the language model.
    Vision,
    /// Anything else: state-space mixers, adapters, prediction heads.
    Other,
}

impl ModuleFamily {
    /// The family of a module.
    pub const fn of(module: &Module) -> Self {
        match module.part {
            Part::Attention => Self::Attention,
            Part::Mlp => Self::Mlp,
            Part::Expert(_) => Self::Experts,
            Part::SharedExpert => Self::SharedExpert,
            Part::Router | Part::Gate => Self::Router,
            Part::Head => Self::Head,
            Part::Embedding => Self::Embedding,
            Part::Vision => Self::Vision,
            Part::Norm | Part::Other => Self::Other,
        }
    }

    /// Words for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Mlp => "mlp",
            Self::Experts => "experts",
            Self::SharedExpert => "shared expert",
            Self::Router => "router",
            Self::Head => "head",
            Self::Embedding => "embedding",
            Self::Vision => "vision",
            Self::Other => "other",
        }
    }
}
