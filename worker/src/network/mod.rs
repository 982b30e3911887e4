//! The forward pass of a decoder on any backend, layer by layer, with taps at every linear input and cache.

mod batches;
mod blocks;
mod decoder;
#[cfg(test)]
mod expert_tests;
mod experts;
mod layer;
mod memory;
mod outbox;
mod rotary;
mod stage;
mod start;
mod stream;
mod supply;
#[cfg(test)]
mod supply_tests;
mod weights;

pub use batches::Batches;
pub use blocks::{Cost, balance, blocks};
pub use decoder::{CacheSide, Inputs, Tap, Turn};
pub use memory::Demands;
pub use stage::Stage;
pub use start::{Progress, Start, Streaming};
pub use stream::Network;
pub use weights::{SourceWeights, Weights};
