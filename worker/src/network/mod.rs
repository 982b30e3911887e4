//! The forward pass of a decoder on any backend, layer by layer, with taps at every linear input and cache.

mod blocks;
mod decoder;
#[cfg(test)]
mod expert_tests;
mod experts;
mod layer;
mod memory;
mod rotary;
mod stage;
mod stream;
mod weights;

pub use blocks::{Cost, balance, blocks};
pub use decoder::{CacheSide, Inputs, Tap, Turn};
pub use stage::Stage;
pub use stream::{Network, Progress, Start, Streaming};
pub use weights::{SourceWeights, Weights};
