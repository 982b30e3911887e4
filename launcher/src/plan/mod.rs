//! From a sweep to jobs: candidates expanded, named by content, rendered as job scripts.

mod budget;
mod expand;
mod identity;
mod lead;
mod render;
mod saved;

pub use budget::Budget;
pub use expand::{Ingredients, PlannedJob, PlannedRun, SHARD_BYTES, absolute, expand};
pub use identity::{identity, run_name};
pub use lead::lead;
pub use render::{DockerExtras, Extras, Script, SlurmExtras, Task, Template, quote};
pub use saved::{RUN_VERSION, Saved};
