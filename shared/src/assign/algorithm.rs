//! The calibration algorithms that a recipe names, typed and checked (modelopt.md §4).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// How scales are found, and weights changed on the way: algorithms in the order in which they run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// One after another; none takes every scale from the values at hand.
    pub steps: Vec<Step>,
}

/// One algorithm with what all algorithms may be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Whether a layer is calibrated behind its quantized predecessors instead of unquantized ones.
    pub quantized_predecessors: bool,
    /// Share of a layer's experts that each token is shown to, the routed ones first; routing decides alone if none.
    pub experts_ratio: Option<f64>,
}

/// One calibration algorithm; the defaults are ModelOpt's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum Algorithm {
    /// From largest magnitudes.
    Max(Max),
    /// The magnitude with the least squared error of the weight.
    Mse(Search),
    /// The magnitude with the least squared error of the output, block by block.
    LocalHessian(Search),
    /// Input scales that leave room above what calibration saw; weights by another algorithm.
    #[serde(rename = "nvfp4_act_headroom")]
    ActHeadroom(Headroom),
    /// Outliers of activations moved into the weights.
    #[serde(rename = "smoothquant")]
    SmoothQuant(SmoothQuant),
    /// Important channels scaled up before rounding.
    AwqLite(AwqLite),
    /// Magnitudes clipped for the least output error.
    AwqClip(AwqClip),
    /// `awq_lite`, then `awq_clip`.
    AwqFull(AwqFull),
    /// Rounding errors made good by the columns that come after.
    Gptq(Gptq),
    /// A low-rank branch beside the quantized weight.
    #[serde(rename = "svdquant")]
    SvdQuant(SvdQuant),
}

/// Options of `max`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Max {
    /// Whether experts share their weights' largest magnitude.
    pub sync_expert_weight_amax: bool,
}

/// Options of `mse` and `local_hessian`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// Distance of the multipliers that are tried.
    pub step_size: f64,
    /// Smallest multiplier.
    pub start_multiplier: f64,
    /// Largest multiplier.
    pub stop_multiplier: f64,
    /// Whether every E4M3 scale of a static NVFP4 block is tried instead.
    pub fp8_scale_sweep: bool,
    /// Columns of a block of `local_hessian`.
    pub block_size: usize,
}

/// Options of `nvfp4_act_headroom`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Headroom {
    /// Percentile of block magnitudes below which they may underflow.
    pub anchor_percentile: f64,
    /// Percentile of block magnitudes that must fit.
    pub upper_percentile: f64,
    /// Largest factor between both.
    pub rho: f64,
    /// How weights are scaled.
    pub weights: Box<Algorithm>,
}

/// Options of `smoothquant`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmoothQuant {
    /// How much of the activations' range goes to the weights, 0 to 1.
    pub alpha: f64,
}

/// Options of `awq_lite`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AwqLite {
    /// Distance of the exponents that are tried, 0 to 1.
    pub alpha_step: f64,
}

/// Options of `awq_clip`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AwqClip {
    /// Tokens of a batch that are looked at.
    pub max_tokens_per_batch: usize,
    /// Smallest ratio that is tried.
    pub min_clip_ratio: f64,
    /// Distance of the ratios.
    pub shrink_step: f64,
}

/// Options of `awq_full`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AwqFull {
    /// Of its first half.
    pub lite: AwqLite,
    /// Of its second half.
    pub clip: AwqClip,
}

/// Options of `gptq`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gptq {
    /// Share of the mean diagonal that is added to the diagonal.
    pub perc_damp: f64,
    /// Columns between two updates of all that follow.
    pub block_size: usize,
    /// Whether NVFP4 scales are found in the same sweep; a matter of speed in ModelOpt.
    pub fused: bool,
}

/// Options of `svdquant`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SvdQuant {
    /// Rank of the branch.
    pub lowrank: usize,
    /// Patterns of modules that get none.
    pub skip_layers: Vec<String>,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            step_size: 0.1,
            start_multiplier: 0.25,
            stop_multiplier: 4.0,
            fp8_scale_sweep: false,
            block_size: 16,
        }
    }
}

impl Default for SmoothQuant {
    fn default() -> Self {
        Self { alpha: 1.0 }
    }
}

impl Default for AwqLite {
    fn default() -> Self {
        Self { alpha_step: 0.1 }
    }
}

impl Default for AwqClip {
    fn default() -> Self {
        Self { max_tokens_per_batch: 64, min_clip_ratio: 0.5, shrink_step: 0.05 }
    }
}

impl Default for Gptq {
    fn default() -> Self {
        Self { perc_damp: 0.01, block_size: 128, fused: false }
    }
}

impl Calibration {
    /// Whether layers are calibrated behind quantized ones.
    pub fn is_behind_quantized(&self) -> bool {
        self.steps.iter().any(|step| step.quantized_predecessors)
    }

    /// Share of the experts that every token is to be shown to, where a step says so.
    pub fn experts_ratio(&self) -> Option<f64> {
        self.steps.iter().find_map(|step| step.experts_ratio)
    }

    /// Understands `algorithm` of a recipe: a name, a mapping with `method`, a list of either, or null.
    ///
    /// # Errors
    /// The algorithm or an option of it is not known, or a value is out of range.
    pub fn parse(value: &Value) -> Result<Self> {
        let steps = match value {
            Value::Null => Vec::new(),
            Value::Array(list) => list.iter().map(super::algorithm_options::step).collect::<Result<_>>()?,
            one => match super::algorithm_options::method(one) {
                Some(Value::Null) => Vec::new(),
                _ => vec![super::algorithm_options::step(one)?],
            },
        };
        Ok(Self { steps })
    }

    /// Whether any step reads activations beyond their largest magnitudes.
    pub fn needs_activations(&self) -> bool {
        self.steps.iter().any(|step| step.algorithm.needs_activations())
    }

    /// Whether some step moves scales between inputs and weights, and which.
    pub fn smoothing(&self) -> Option<&Algorithm> {
        self.steps.iter().map(|step| &step.algorithm).find(|algorithm| {
            matches!(
                algorithm,
                Algorithm::SmoothQuant(_)
                    | Algorithm::AwqLite(_)
                    | Algorithm::AwqFull(_)
                    | Algorithm::SvdQuant(_)
            )
        })
    }
}

impl Algorithm {
    /// The name in recipes.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Max(_) => "max",
            Self::Mse(_) => "mse",
            Self::LocalHessian(_) => "local_hessian",
            Self::ActHeadroom(_) => "nvfp4_act_headroom",
            Self::SmoothQuant(_) => "smoothquant",
            Self::AwqLite(_) => "awq_lite",
            Self::AwqClip(_) => "awq_clip",
            Self::AwqFull(_) => "awq_full",
            Self::Gptq(_) => "gptq",
            Self::SvdQuant(_) => "svdquant",
        }
    }

    /// Whether it reads activations beyond their largest magnitudes.
    pub fn needs_activations(&self) -> bool {
        match self {
            Self::Max(_) | Self::Mse(_) => false,
            Self::ActHeadroom(_)
            | Self::LocalHessian(_)
            | Self::SmoothQuant(_)
            | Self::AwqLite(_)
            | Self::AwqClip(_)
            | Self::AwqFull(_)
            | Self::Gptq(_)
            | Self::SvdQuant(_) => true,
        }
    }
}

/// The error of a value of `quantize.algorithm`.
pub(super) fn wrong(message: String) -> Error {
    Error::input(message).key("quantize.algorithm")
}

/// A mapping that options can be taken out of one by one.
pub(super) type Options = Map<String, Value>;
