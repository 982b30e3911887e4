//! Evaluation: perplexity and KL divergence of a checkpoint with its quantization simulated as served.

mod checkpoint;
mod measure;
mod reference;
mod simulate;

pub use checkpoint::{CheckpointWeights, ServedNumerics};
pub use measure::{Against, measure};
pub use reference::{KeptReference, keep_reference};
pub use simulate::Simulator;
