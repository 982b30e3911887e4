//! MX: small floats or integers in blocks of 32 along the input, with a power of two per block as scale.

mod elements;
mod power;
mod weights;

pub use elements::{E2M1, E3M2, E4M3, Int8, MxElement};
pub use weights::{Encoded, decode, encode, simulate};

/// Elements that share a scale.
pub const BLOCK: usize = 32;

#[cfg(test)]
mod tests;
