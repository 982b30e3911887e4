//! What a worker leaves in its attempt's folder: events while it works, an outcome when it ends.

mod process;
mod reporter;

pub use process::{cpu_seconds, host_name, peak_memory, stop_at_once, stop_requested, stop_with_parent, watch_signals};
pub use reporter::{Reporter, stopped, write_outcome};
