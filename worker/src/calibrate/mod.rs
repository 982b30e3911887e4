//! Calibration: what the unquantized model's activations look like.

mod cache;
mod collect;
mod needs;
mod observe;
mod silent;
mod statistics;

pub use cache::CacheStatistics;
pub use needs::{Clipped, Needs, clipped};
pub use observe::Observer;
pub use silent::StandIn;
pub use statistics::{BlockGrams, Channels, Gram, InputStatistics, LogHistogram, Statistics};
