//! Calibration: what the unquantized model's activations look like.

mod cache;
mod collect;
mod freeze;
mod keep;
mod observe;
mod silent;
mod statistics;

pub use cache::CacheStatistics;
pub use keep::{read_observation, write_observation};
pub use observe::{Observer, Wanted, WantedCache};
pub use silent::StandIn;
pub use statistics::{BlockGrams, Channels, Gram, InputStatistics, LogHistogram, Statistics};
