//! Quantization: codecs, one per format, and the algorithms that choose their scales.

pub mod algorithm;
mod cache;
pub mod codec;
mod decode;
mod device;
mod error;
mod linear;
mod magnitudes;
mod share;
mod simulate;
mod smooth;
mod weight;

pub use cache::{CacheRounding, scale_channels, simulate_cache};
pub use decode::{Parts, decode_weight, stored_weight};
pub use device::{quantize_weight_on, round_activation};
pub use error::{Errors, Origin, measure_errors};
pub use linear::{LinearWork, LowRank, Remark};
pub use magnitudes::Magnitudes;
pub use share::{share_before_search, share_for_export};
use simulate::fixed_scales;
pub use simulate::{fine_count, simulate_activation, simulate_rows, simulate_weight};
pub use smooth::{fold, smooth};
pub use weight::{StoredBytes, activation_scale, cache_scale, magnitudes, quantize_weight, weight_amax};

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod spread_property_tests;
