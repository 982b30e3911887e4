//! The worker binary, brought to where the jobs run.

mod local;

pub use local::worker_binary;
