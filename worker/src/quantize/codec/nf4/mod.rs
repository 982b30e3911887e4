//! NF4 with double quantization, in bitsandbytes' values and layout: 16 quantiles of a normal distribution in blocks of 64
//! elements of the flat weight, the blocks' magnitudes less their mean as 8-bit codes in blocks of 256.
//!
//! Source: Dettmers et al., "QLoRA" (2023), and bitsandbytes 0.50's `functional.py` (`quantize_4bit`,
//! `quantize_blockwise`) and default kernels. Files hold both code books, so readers use the ones that were used here.

mod codes;
mod maps;
mod state;

pub use codes::{Nested, decode, encode, simulate, simulate_nested};
pub use state::{Stored, parts, parts_of};

/// Elements that share a magnitude.
pub const BLOCK: usize = 64;
/// Magnitudes that share a scale.
pub const NESTED_BLOCK: usize = qlaunch_shared::numerics::parts::NF4_NESTED_BLOCK;

#[cfg(test)]
mod tests;
