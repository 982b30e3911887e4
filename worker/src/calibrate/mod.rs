//! Calibration: what the unquantized model's activations look like.

mod collect;
mod needs;
mod observe;
mod statistics;

pub use needs::{Clipped, Needs, clipped};
pub use observe::Observer;
pub use statistics::{BlockGrams, Channels, Gram, InputStatistics, LogHistogram, Statistics};
