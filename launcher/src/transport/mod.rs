//! Files and commands of a host, near or far.

mod contract;
mod far;
mod fleet;
mod frames;
mod host;
mod local;
mod refusal;
mod ssh;

pub use contract::{Chunk, CommandOutput, DEADLINE, Transport, Wanted};
pub use fleet::Fleet;
pub use host::Host;
pub use local::Local;
pub use ssh::{Ssh, Way, has_room_for_socket};
