//! Files and commands of a host, near or far.

mod local;
mod transport;

pub use local::Local;
pub use transport::{CommandOutput, Transport};
