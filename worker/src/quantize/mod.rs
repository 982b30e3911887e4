//! Quantization: codecs, one per format, and the algorithms that choose their scales.

pub mod codec;
mod weight;

pub use weight::{StoredBytes, activation_scale, quantize_weight, weight_amax};
