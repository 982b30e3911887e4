//! The one table of formats: what a stored weight or an activation looks like, in bits, blocks and scales.

use serde::{Deserialize, Serialize};

use super::{BlockSizes, NumBits, QuantizerAttributes};
use crate::checkpoint::DType;

const E4M3: NumBits = NumBits::Float(4, 3);
const E2M1: NumBits = NumBits::Float(2, 1);

/// Numerics of a stored weight or an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// E4M3 with one f32 scale per tensor.
    Fp8,
    /// E2M1 in blocks of 16 along the input, an E4M3 scale per block and an f32 scale per tensor.
    Nvfp4,
}

/// One tensor that a format stores beside or instead of a weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// Suffix on the module's name: `weight`, `weight_scale`, ….
    pub suffix: &'static str,
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<usize>,
}

impl Format {
    /// Name in configs and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp8 => "FP8",
            Self::Nvfp4 => "NVFP4",
        }
    }

    /// Bits of one code, scales apart.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Fp8 => 8,
            Self::Nvfp4 => 4,
        }
    }

    /// Elements along the input that share a scale, where scales are per block.
    pub const fn block(self) -> Option<usize> {
        match self {
            Self::Fp8 => None,
            Self::Nvfp4 => Some(16),
        }
    }

    /// Largest value of a tensor in units of its per-tensor scale: `scale = amax / reach`.
    pub const fn reach(self) -> f32 {
        match self {
            Self::Fp8 => 448.0,
            Self::Nvfp4 => 6.0 * 448.0,
        }
    }

    /// Whether linears that read the same input must share the per-tensor scales (`specs` of the serving engines:
    /// their fused matrix has one).
    pub const fn shares_scales(self) -> bool {
        matches!(self, Self::Nvfp4)
    }

    /// The tensors that store a weight of `[rows, columns]`.
    pub fn weight_parts(self, rows: usize, columns: usize) -> Vec<StoredPart> {
        let part = |suffix, dtype, shape| StoredPart { suffix, dtype, shape };
        match self {
            Self::Fp8 => vec![
                part("weight", DType::F8E4M3, vec![rows, columns]),
                part("weight_scale", DType::F32, vec![]),
            ],
            Self::Nvfp4 => vec![
                part("weight", DType::U8, vec![rows, columns / 2]),
                part("weight_scale", DType::F8E4M3, vec![rows, columns / 16]),
                part("weight_scale_2", DType::F32, vec![]),
            ],
        }
    }

    /// The format that quantizer attributes describe, `None` where this version has no codec for it.
    pub fn of(attributes: &QuantizerAttributes) -> Option<Self> {
        let is_plain = attributes.axis.value().is_none()
            && attributes.bias.value().is_none()
            && attributes.backend.value().is_none()
            && !attributes.is_dynamic()
            && !attributes.is_rotated()
            && !attributes.unsigned.unwrap_or(false);
        let blocks = attributes.block_sizes.value();
        match (is_plain, attributes.num_bits(), blocks) {
            (true, E4M3, None) => Some(Self::Fp8),
            (true, E2M1, Some(blocks)) if is_nvfp4(blocks) => Some(Self::Nvfp4),
            _ => None,
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Blocks of 16 along the input with E4M3 scales that are found on the fly.
fn is_nvfp4(blocks: &BlockSizes) -> bool {
    blocks.along_last() == Some(16)
        && blocks.is_dynamic()
        && blocks.scale_bits == Some(E4M3)
        && blocks.scale_block_sizes.is_none()
        && !blocks.is_four_over_six()
}
