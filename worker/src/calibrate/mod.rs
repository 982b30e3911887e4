//! Calibration: what the unquantized model's activations look like.

mod observe;
mod statistics;

pub use observe::Observer;
pub use statistics::Statistics;
