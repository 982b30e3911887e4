//! Evaluation: perplexity and KL divergence of a checkpoint with its quantization simulated as served.

mod checkpoint;
mod hope;
mod measure;
mod numerics;
mod reference;
mod simulate;

pub use checkpoint::CheckpointWeights;
pub use hope::{Hope, check_finite};
pub use measure::{Against, measure};
pub use numerics::{Branch, Served, ServedInput, ServedNumerics};
pub use reference::{KeptReference, keep_reference};
pub use simulate::Simulator;
