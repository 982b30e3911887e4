//! The forward pass of a dense decoder on any backend, layer by layer, with taps at every linear input and cache.

mod decoder;
mod rotary;
mod stream;
mod weights;

pub use decoder::{CacheSide, Inputs, Tap};
pub use stream::{Network, Progress};
pub use weights::{SourceWeights, Weights};
