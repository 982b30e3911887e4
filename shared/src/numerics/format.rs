//! The one table of formats: what a stored weight or an activation looks like, in bits, blocks and scales.

use serde::{Deserialize, Serialize};

use super::StoredPart;
use crate::checkpoint::DType;

/// Numerics of a stored weight or an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// E4M3 with one f32 scale per tensor.
    Fp8,
    /// E4M3 with an f32 scale per row of a weight.
    Fp8Channel,
    /// E4M3 of an activation, scaled by each token's own largest magnitude.
    Fp8Token,
    /// E4M3 of a weight with an f32 scale per square of `block` × `block`.
    Fp8Block {
        /// Side of a square.
        block: u32,
    },
    /// 8-bit integers with one f32 scale per tensor.
    Int8,
    /// 8-bit integers with an f32 scale per row of a weight.
    Int8Channel,
    /// 4-bit integers in blocks along the input, an f32 scale per block.
    Int4 {
        /// Elements that share a scale.
        block: u32,
    },
    /// INT4 as above, of which the values are E4M3 with one more f32 scale per tensor: weights of W4A8.
    Int4Fp8 {
        /// Elements that share a scale.
        block: u32,
    },
    /// E2M1 in blocks along the input, an E4M3 scale per block and an f32 scale per tensor.
    Nvfp4 {
        /// Elements that share a scale.
        block: u32,
        /// How the scales are made.
        scales: Nvfp4Scales,
    },
    /// E2M1 in blocks of 32 along the input with power-of-two scales.
    Mxfp4,
    /// E3M2 in blocks of 32 along the input with power-of-two scales.
    Mxfp6,
    /// E4M3 in blocks of 32 along the input with power-of-two scales.
    Mxfp8,
    /// 8-bit integers in blocks of 32 along the input with power-of-two scales.
    Mxint8,
    /// The 16 quantiles of a normal distribution in blocks of 64, scales quantized to 8 bits in blocks of 256.
    Nf4,
}

/// How the scales of an NVFP4 tensor are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nvfp4Scales {
    /// A block's scale from the values at hand.
    Dynamic,
    /// A block's scale from a magnitude that calibration keeps, and may search.
    Static,
    /// Static, and a block may end at 4 instead of 6; the tensor's scale leaves room for that.
    FourOverSix,
    /// Of weights that meet FP8 activations: blocks reach 448 only, so that a dequantized weight fits into E4M3.
    UnderFp8,
}

/// How codes of a format are scaled, from coarse to fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// One scale.
    Tensor,
    /// One per row of a weight.
    Row,
    /// One per token of an activation.
    Token,
    /// One per square of a weight.
    Square(usize),
    /// One per block along the input.
    Block(usize),
}

impl Format {
    /// NVFP4 as engines serve it: blocks of 16, scales from the values at hand.
    pub const NVFP4: Self = Self::Nvfp4 { block: 16, scales: Nvfp4Scales::Dynamic };

    /// Name in configs and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp8 => "FP8",
            Self::Fp8Channel => "FP8 per channel",
            Self::Fp8Token => "FP8 per token",
            Self::Fp8Block { .. } => "FP8 blocks",
            Self::Int8 => "INT8",
            Self::Int8Channel => "INT8 per channel",
            Self::Int4 { .. } => "INT4",
            Self::Int4Fp8 { .. } => "INT4 in FP8",
            Self::Nvfp4 { scales: Nvfp4Scales::Dynamic, .. } => "NVFP4",
            Self::Nvfp4 { scales: Nvfp4Scales::Static, .. } => "NVFP4 static",
            Self::Nvfp4 { scales: Nvfp4Scales::FourOverSix, .. } => "NVFP4 4/6",
            Self::Nvfp4 { scales: Nvfp4Scales::UnderFp8, .. } => "NVFP4 under FP8",
            Self::Mxfp4 => "MXFP4",
            Self::Mxfp6 => "MXFP6",
            Self::Mxfp8 => "MXFP8",
            Self::Mxint8 => "MXINT8",
            Self::Nf4 => "NF4",
        }
    }

    /// Bits of one code, scales apart.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Fp8
            | Self::Fp8Channel
            | Self::Fp8Token
            | Self::Fp8Block { .. }
            | Self::Int8
            | Self::Int8Channel
            | Self::Mxfp8
            | Self::Mxint8 => 8,
            Self::Mxfp6 => 6,
            Self::Int4 { .. } | Self::Int4Fp8 { .. } | Self::Nvfp4 { .. } | Self::Mxfp4 | Self::Nf4 => 4,
        }
    }

    /// How codes are scaled; of formats with two levels the finer one.
    pub const fn grain(self) -> Grain {
        match self {
            Self::Fp8 | Self::Int8 => Grain::Tensor,
            Self::Fp8Channel | Self::Int8Channel => Grain::Row,
            Self::Fp8Token => Grain::Token,
            Self::Fp8Block { block } => Grain::Square(block as usize),
            Self::Int4 { block } | Self::Int4Fp8 { block } | Self::Nvfp4 { block, .. } => {
                Grain::Block(block as usize)
            }
            Self::Mxfp4 | Self::Mxfp6 | Self::Mxfp8 | Self::Mxint8 => Grain::Block(32),
            Self::Nf4 => Grain::Block(64),
        }
    }

    /// Elements along the input that share a scale, where scales are per block.
    pub const fn block(self) -> Option<usize> {
        match self.grain() {
            Grain::Block(block) => Some(block),
            Grain::Tensor | Grain::Row | Grain::Token | Grain::Square(_) => None,
        }
    }

    /// Largest magnitude of a code's value, ModelOpt's `maxbound`.
    pub const fn largest(self) -> f32 {
        match self {
            Self::Fp8 | Self::Fp8Channel | Self::Fp8Token | Self::Fp8Block { .. } | Self::Mxfp8 => 448.0,
            Self::Int8 | Self::Int8Channel | Self::Mxint8 => 127.0,
            Self::Int4 { .. } | Self::Int4Fp8 { .. } => 7.0,
            Self::Nvfp4 { .. } | Self::Mxfp4 => 6.0,
            Self::Mxfp6 => 28.0,
            Self::Nf4 => 1.0,
        }
    }

    /// Largest value of a tensor in units of its per-tensor scale: `scale = amax / reach`. `None` without such a scale.
    pub const fn reach(self) -> Option<f32> {
        match self {
            Self::Fp8 => Some(448.0),
            Self::Int8 => Some(127.0),
            // Of the FP8 values that the INT4 codes stand for.
            Self::Int4Fp8 { .. } => Some(448.0),
            Self::Nvfp4 { scales: Nvfp4Scales::Dynamic | Nvfp4Scales::Static, .. } => Some(6.0 * 448.0),
            // Blocks that end at 4 need scales up to 1.5 times those that end at 6.
            Self::Nvfp4 { scales: Nvfp4Scales::FourOverSix, .. } => Some(6.0 * 256.0),
            Self::Nvfp4 { scales: Nvfp4Scales::UnderFp8, .. } => Some(448.0),
            _ => None,
        }
    }

    /// Whether export merges linears that read the same input: one input scale, one per-tensor weight scale where the
    /// format has it, one smoothing of the input. ModelOpt does so with every format but FP8 (modelopt.md §6.2).
    pub const fn shares_scales(self) -> bool {
        !matches!(self, Self::Fp8)
    }

    /// Whether a weight has an f32 scale per tensor on top of its block scales.
    pub const fn has_tensor_scale(self) -> bool {
        matches!(self, Self::Nvfp4 { .. } | Self::Int4Fp8 { .. })
    }

    /// Whether it can only be an activation, only a weight, or either.
    pub const fn is_for(self, side: Side) -> bool {
        match self {
            Self::Fp8 | Self::Mxfp4 | Self::Mxfp6 | Self::Mxfp8 | Self::Mxint8 => true,
            Self::Nvfp4 { scales: Nvfp4Scales::Dynamic, .. } => true,
            Self::Fp8Token | Self::Int8 => matches!(side, Side::Activation),
            _ => matches!(side, Side::Weight),
        }
    }

    /// Why no checkpoint in this format can be served, where none can.
    pub const fn unexportable(self) -> Option<&'static str> {
        match self {
            Self::Mxfp6 => Some("no serving engine has a layout for MXFP6, and ModelOpt exports none"),
            Self::Mxint8 => Some("no serving engine has a layout for MXINT8, and ModelOpt exports none"),
            _ => None,
        }
    }

    /// Why a weight of `[rows, columns]` cannot be stored, where it cannot.
    pub fn misfit(self, rows: usize, columns: usize) -> Option<String> {
        // NF4 blocks run over the flat weight, its last block may be short.
        let block = self.block().filter(|_| self != Self::Nf4);
        if let Some(block) = block.filter(|block| !columns.is_multiple_of(*block)) {
            return Some(format!("{columns} input features are no multiple of {self}'s block of {block}"));
        }
        let pairs_rows = matches!(self, Self::Int4 { .. } | Self::Int4Fp8 { .. });
        if pairs_rows && !rows.is_multiple_of(2) {
            return Some(format!("{self} packs pairs of rows, and {rows} output features are odd"));
        }
        None
    }

    /// The tensors that store a weight of `[rows, columns]` of a model in `dtype`.
    pub fn weight_parts(self, rows: usize, columns: usize, dtype: DType) -> Vec<StoredPart> {
        super::parts::weight_parts(self, rows, columns, dtype)
    }
}

/// What a format is put on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The weight of a linear.
    Weight,
    /// Its input, or keys and values.
    Activation,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
