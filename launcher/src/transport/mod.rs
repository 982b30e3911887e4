//! Files and commands of a host, near or far.

mod contract;
mod local;

pub use contract::{CommandOutput, Transport};
pub use local::Local;
