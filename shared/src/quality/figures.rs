//! Figures of a checkpoint's parts: errors of each linear, tokens of each expert.

use serde::{Deserialize, Serialize};

use crate::assign::Smoothing;

/// One quantized linear.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleQuality {
    /// Full name.
    pub name: String,
    /// Numerics of the weight.
    pub weight: String,
    /// Numerics of the input; absent where it is left as it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub input: Option<String>,
    /// `‖Ŵ − W‖² / ‖W‖²` of what an engine multiplies with against the source's weight, factors on inputs and low-rank
    /// branches included.
    pub weight_error: Option<f64>,
    /// `tr(E·G·Eᵀ) / tr(W·G·Wᵀ)` with `E = Ŵ − W` and `G = XᵀX` of the calibration data: the share of the output's energy that
    /// is lost to the rounding of the weight, rounding of activations apart.
    pub output_error: Option<f64>,
    /// Why there is no output error, where there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub without_output_error: Option<String>,
    /// Rows of the weight that the weight's error is taken over.
    pub rows_measured: usize,
    /// All its rows.
    pub rows: usize,
    /// What is done to its input.
    pub smoothing: Smoothing,
    /// What algorithms chose, and what they had to give up.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub remarks: Vec<Remark>,
}

/// Something that an algorithm chose for one linear, or could not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// The algorithm.
    pub algorithm: String,
    /// What is told: `alpha`, `clip_ratio`, `fallback`, ….
    pub what: String,
    /// Its value, or the reason.
    pub value: String,
}

impl Remark {
    /// Whether an algorithm could not do what it was asked for.
    pub fn is_fallback(&self) -> bool {
        matches!(self.what.as_str(), "fallback" | "no_tokens" | "nan_avoided" | "zero_amax")
    }
}

/// How many tokens each routed expert saw in calibration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experts {
    /// Layer and tokens of each of its experts, in order.
    pub layers: Vec<(usize, Vec<u64>)>,
    /// Experts that saw none, and what was done for them.
    pub silent: Vec<SilentExpert>,
}

/// A routed expert that saw no token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilentExpert {
    /// Decoder layer.
    pub layer: usize,
    /// Which expert, counted from zero.
    pub expert: u32,
    /// What stands in for its statistics: `peers`, `weights`, `not_needed`, or `shown N tokens by …`.
    pub policy: String,
}
