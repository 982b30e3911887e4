//! Evaluation: perplexity and KL divergence of a checkpoint with its quantization simulated as served.

mod checkpoint;
mod measure;
mod numerics;
mod reference;
mod simulate;

pub use checkpoint::CheckpointWeights;
pub use measure::{Against, measure};
pub use numerics::{Branch, Served, ServedInput, ServedNumerics};
pub use reference::{KeptReference, keep_reference};
pub use simulate::Simulator;
