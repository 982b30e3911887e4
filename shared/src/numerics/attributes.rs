//! What one quantizer does to its tensor: ModelOpt 0.47's `QuantizerAttributeConfig`, typed and checked.
//!
//! A field that was not written is told from one that was written as its default, because printed recipes carry only
//! what their authors wrote.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::blocks::{Bias, BlockSizes, check_blocks};
use super::field::{Field, given};

/// Attributes of one quantizer; defaults stand in the accessors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuantizerAttributes {
    /// Whether it quantizes at all (true).
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub enable: Option<bool>,
    /// Numerics of the codes (8-bit integers).
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub num_bits: Option<NumBits>,
    /// Bits per element for the cost models of searches, in (0, 16].
    #[serde(skip_serializing_if = "Field::is_unset")]
    pub effective_bits: Field<f64>,
    /// Axes that keep a scale each; `null` is one scale for the tensor.
    #[serde(skip_serializing_if = "Field::is_unset")]
    pub axis: Field<Axis>,
    /// Whether values are rounded but kept in floats (true).
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub fake_quant: Option<bool>,
    /// Whether integers have no sign (false).
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub unsigned: Option<bool>,
    /// Whether the lowest integer is left out (false).
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub narrow_range: Option<bool>,
    /// Removed from ModelOpt; only false is accepted.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub learn_amax: Option<bool>,
    /// Whether the largest magnitude is calibrated (static, the default) or taken from the values at hand.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub scaling: Option<Scaling>,
    /// Blocks that share a scale.
    #[serde(skip_serializing_if = "Field::is_unset")]
    pub block_sizes: Field<BlockSizes>,
    /// Offset of affine quantization.
    #[serde(skip_serializing_if = "Field::is_unset")]
    pub bias: Field<Bias>,
    /// Type of unquantized values in ONNX exports (`Float`).
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub trt_high_precision_dtype: Option<HighPrecision>,
    /// How the largest magnitude is found: `max`, `histogram` or a constructor of ModelOpt's.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub calibrator: Option<Value>,
    /// Hadamard transform of the last axis before quantization (false).
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub rotate: Option<Rotate>,
    /// Whether gradients pass through (true); matters to training only.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub pass_through_bwd: Option<bool>,
    /// A custom implementation registered with ModelOpt.
    #[serde(skip_serializing_if = "Field::is_unset")]
    pub backend: Field<String>,
    /// Arguments of the custom implementation.
    #[serde(skip_serializing_if = "Field::is_unset")]
    pub backend_extra_args: Field<serde_json::Map<String, Value>>,
    /// Whether the largest magnitude is 448 without calibration, for KV caches (false).
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub use_constant_amax: Option<bool>,
    /// A fixed largest magnitude instead of a calibrated one.
    #[serde(skip_serializing_if = "Field::is_unset")]
    pub constant_amax: Field<f64>,
}

/// Numerics of codes or of scales.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of bits, or a float like `e4m3`")]
pub enum NumBits {
    /// Integers of so many bits.
    Integer(i64),
    /// Floats of so many exponent and mantissa bits, as `e4m3` or `[4, 3]`.
    Float(i64, i64),
    /// A name that means something to a custom backend.
    Named(String),
}

/// Axes that keep a scale each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected an axis or a list of axes")]
pub enum Axis {
    /// One axis.
    One(i64),
    /// Several.
    Many(Vec<i64>),
}

/// When a scale is determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// Once, before anything is served.
    Static,
    /// From the values at hand.
    Dynamic,
}

/// Type of unquantized values in ONNX exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are ONNX's own")]
pub enum HighPrecision {
    Float,
    Half,
    BFloat16,
}

/// The Hadamard transform before quantization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected true, false or a mapping with `enable`")]
pub enum Rotate {
    /// On or off with its defaults.
    Switch(bool),
    /// In detail.
    Detailed(RotateDetails),
}

/// Details of the Hadamard transform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RotateDetails {
    /// Whether it is done (false).
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub enable: Option<bool>,
    /// Whether it is undone after quantization.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub mode: Option<RotateMode>,
    /// Whether it is computed in f32 (false).
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub rotate_fp32: Option<bool>,
    /// Elements that are mixed with each other; all when not given.
    #[serde(skip_serializing_if = "Field::is_unset")]
    pub block_size: Field<i64>,
}

/// What happens to a rotated tensor after quantization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotateMode {
    /// It stays rotated.
    Rotate,
    /// It is rotated back.
    RotateBack,
}

/// A rule of ModelOpt that attributes do not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The attribute at fault; empty for the whole.
    pub key: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl QuantizerAttributes {
    /// Numerics of the codes; 8-bit integers when not written.
    pub fn num_bits(&self) -> NumBits {
        self.num_bits.clone().unwrap_or(NumBits::Integer(8))
    }

    /// Whether scales follow the values at hand, so that nothing is calibrated.
    pub fn is_dynamic(&self) -> bool {
        self.scaling == Some(Scaling::Dynamic)
    }

    /// Whether the Hadamard transform is on.
    pub fn is_rotated(&self) -> bool {
        match &self.rotate {
            Some(Rotate::Switch(on)) => *on,
            Some(Rotate::Detailed(details)) => details.enable == Some(true),
            None => false,
        }
    }

    /// A few words for tables and errors: `E2M1, dynamic blocks of 16 with E4M3 scales`.
    pub fn summary(&self) -> String {
        let mut words = self.num_bits().to_string();
        match (self.block_sizes.value(), self.axis.value()) {
            (Some(blocks), _) => {
                let kind = if blocks.is_dynamic() { "dynamic" } else { "static" };
                let side =
                    |size: &Option<i64>| size.map_or_else(|| "all".to_owned(), |size| size.to_string());
                let sizes: Vec<String> = blocks.axes.values().map(side).collect();
                words += &format!(", {kind} blocks of {}", sizes.join("×"));
                if let Some(bits) = &blocks.scale_bits {
                    words += &format!(" with {bits} scales");
                }
            }
            (None, Some(_)) => words += ", a scale per channel",
            (None, None) => {}
        }
        if self.is_dynamic() {
            words += ", dynamic";
        }
        words
    }

    /// Checks the rules that reach over several attributes (`QuantizerAttributeConfig`'s validators).
    ///
    /// # Errors
    /// The first rule that is not kept.
    pub fn check(&self) -> Result<(), Fault> {
        let only_enabled = Self { enable: Some(true), ..Self::default() };
        if *self == only_enabled {
            return Err(fault("enable", "`enable: true` alone says nothing about the numerics"));
        }
        if self.learn_amax == Some(true) {
            return Err(fault("learn_amax", "`learn_amax` was removed from ModelOpt"));
        }
        if self.effective_bits.map_or(false, |bits| !(*bits > 0.0 && *bits <= 16.0)) {
            return Err(fault("effective_bits", "`effective_bits` must be above 0 and at most 16"));
        }
        if let Some(blocks) = self.block_sizes.value() {
            check_blocks(&self.axis, blocks).map_err(|message| Fault { key: "block_sizes", message })?;
        }
        if self.bias.map_or(false, |bias| bias.axes.is_empty()) {
            return Err(fault("bias", "`bias` names no axis to reduce, like `-2: null`"));
        }
        self.check_calibration()?;
        self.check_bits()
    }

    fn check_calibration(&self) -> Result<(), Fault> {
        let known = match &self.calibrator {
            Some(Value::String(name)) => matches!(name.as_str(), "max" | "histogram"),
            Some(Value::Array(_)) | None => true,
            Some(_) => false,
        };
        if !known {
            return Err(fault("calibrator", "`calibrator` must be `max`, `histogram` or a constructor"));
        }
        if self.constant_amax.map_or(false, |amax| *amax <= 0.0) {
            return Err(fault("constant_amax", "`constant_amax` must be positive"));
        }
        if self.use_constant_amax == Some(true) && self.constant_amax.value().is_some() {
            return Err(fault("constant_amax", "`use_constant_amax` and `constant_amax` exclude each other"));
        }
        match &self.rotate {
            Some(Rotate::Detailed(details)) if details.block_size.map_or(false, |size| *size < 1) => {
                Err(fault("rotate", "`block_size` of `rotate` must be positive"))
            }
            _ => Ok(()),
        }
    }

    /// ModelOpt leaves the bits of custom backends to them.
    fn check_bits(&self) -> Result<(), Fault> {
        if self.backend.value().is_some() {
            return Ok(());
        }
        let message = match self.num_bits() {
            NumBits::Integer(bits) if bits < 1 => format!("{bits} bits are not possible"),
            NumBits::Integer(_) | NumBits::Float(4, 3) | NumBits::Float(2, 1) => return Ok(()),
            NumBits::Float(exponent, mantissa) if exponent < 1 || mantissa < 1 => {
                format!("E{exponent}M{mantissa} needs at least one bit of each")
            }
            bits @ (NumBits::Float(5, 2)
            | NumBits::Float(1, 2)
            | NumBits::Float(3, 2)
            | NumBits::Float(2, 3)) => {
                if self.block_sizes.map_or(false, BlockSizes::is_dynamic) {
                    return Ok(());
                }
                format!("{bits} needs `block_sizes` of `type: dynamic`")
            }
            bits @ NumBits::Float(..) => {
                format!("{bits} is not known: use e4m3, e5m2, e3m2, e2m3, e2m1 or e1m2")
            }
            NumBits::Named(name) => format!("`{name}` is neither a number of bits nor a float like `e4m3`"),
        };
        Err(Fault { key: "num_bits", message })
    }
}

fn fault(key: &'static str, message: &str) -> Fault {
    Fault { key, message: message.to_owned() }
}

impl fmt::Display for NumBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(bits) => write!(f, "INT{bits}"),
            Self::Float(exponent, mantissa) => write!(f, "E{exponent}M{mantissa}"),
            Self::Named(name) => write!(f, "`{name}`"),
        }
    }
}
