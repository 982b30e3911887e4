//! The forward pass of a decoder on any backend, layer by layer, with taps at every linear input and cache.

mod decoder;
#[cfg(test)]
mod expert_tests;
mod experts;
mod layer;
mod rotary;
mod stream;
mod weights;

pub use decoder::{CacheSide, Inputs, Tap, Turn};
pub use stream::{Network, Progress};
pub use weights::{SourceWeights, Weights};
