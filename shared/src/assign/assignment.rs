//! An assignment: every linear and every attention of a model with its numerics, and the hash that names the whole.

use serde::{Deserialize, Serialize};

use super::Calibration;
use crate::checkpoint::{CacheAlgorithm, LayerAlgorithm};
use crate::digest::sha256;
use crate::model::FusedGroup;
use crate::numerics::{BiasMethod, Format};

/// Where the largest magnitude of an activation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amax {
    /// From calibration.
    Calibrated,
    /// The recipe gives it, and it is stored.
    Constant(f32),
    /// The format's own reach at scale 1, and nothing is stored (`use_constant_amax`).
    Unit,
    /// From the values at hand, token by token or block by block; nothing is stored.
    Dynamic,
}

/// What is done to the input of a linear to spread its outliers, so that its weight does the opposite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Smoothing {
    /// Nothing.
    #[default]
    None,
    /// The module before it takes over the factors: a norm, or the linear whose output it reads.
    Folded,
    /// The factors are stored as `pre_quant_scale`, for engines to multiply inputs with.
    Stored,
}

/// Numerics of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ActivationNumerics {
    /// What it is rounded to.
    pub format: Format,
    /// Where its scale comes from.
    pub amax: Amax,
    /// How the offset is found that is taken off before rounding and added back; `None` is no offset.
    pub offset: Option<BiasMethod>,
    /// Whether a Hadamard transform mixes each head before rounding.
    pub rotated: bool,
}

/// Numerics of one quantized linear.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinearNumerics {
    /// Index into the model's modules.
    #[serde(skip)]
    pub module: usize,
    /// Its full name.
    pub name: String,
    /// Numerics of the weight.
    pub weight: Format,
    /// Numerics of the input; `None` leaves it as it is.
    pub input: Option<ActivationNumerics>,
    /// What is done to its input before anything else.
    pub smoothing: Smoothing,
    /// Rank of the unquantized branch beside the weight, where there is one.
    pub low_rank: Option<usize>,
    /// Layer and group whose per-tensor scales it shares, where its format asks for that.
    #[serde(skip)]
    pub shared: Option<(usize, FusedGroup)>,
}

impl LinearNumerics {
    /// The pair of formats.
    pub fn algorithm(&self) -> LayerAlgorithm {
        LayerAlgorithm {
            weight: self.weight,
            input: self.input.map(|input| input.format),
            smoothed: self.smoothing != Smoothing::None,
            low_rank: self.low_rank,
        }
    }
}

/// Numerics of the KV cache of one attention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheNumerics {
    /// Decoder layer.
    pub layer: usize,
    /// Full name of the attention.
    pub name: String,
    /// Keys, after rotation.
    pub key: ActivationNumerics,
    /// Values.
    pub value: ActivationNumerics,
    /// Whether queries go through the same Hadamard transform as keys, so that their products stay.
    pub rotated_query: bool,
}

impl CacheNumerics {
    /// What a checkpoint declares of it.
    pub fn algorithm(&self) -> CacheAlgorithm {
        CacheAlgorithm {
            format: self.key.format,
            offset: self.key.offset.is_some(),
            rotated: self.key.rotated,
        }
    }
}

/// A recipe resolved against one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// Quantized linears in model order.
    pub linears: Vec<LinearNumerics>,
    /// Attentions with a quantized KV cache.
    pub caches: Vec<CacheNumerics>,
    /// How scales are found.
    pub calibration: Calibration,
}

impl Assignment {
    /// SHA-256 over the assignment's canonical JSON, 16 hexadecimal digits of it.
    pub fn hash(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        sha256(text)[..16].to_owned()
    }

    /// The linear of this module index, where it is quantized.
    pub fn linear(&self, module: usize) -> Option<&LinearNumerics> {
        // Linears stand in model order.
        let place = self.linears.binary_search_by_key(&module, |linear| linear.module).ok()?;
        self.linears.get(place)
    }

    /// The cache numerics of a decoder layer.
    pub fn cache(&self, layer: usize) -> Option<&CacheNumerics> {
        let place = self.caches.binary_search_by_key(&layer, |cache| cache.layer).ok()?;
        self.caches.get(place)
    }

    /// Whether activations must be seen before anything can be quantized.
    pub fn needs_calibration(&self) -> bool {
        let calibrated =
            |numerics: &ActivationNumerics| numerics.amax == Amax::Calibrated || numerics.offset.is_some();
        self.calibration.needs_activations()
            || self.linears.iter().filter_map(|linear| linear.input.as_ref()).any(calibrated)
            || self.caches.iter().any(|cache| calibrated(&cache.key) || calibrated(&cache.value))
    }
}
