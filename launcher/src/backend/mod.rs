//! Where jobs run: each backend can submit, find, poll and cancel.

mod contract;
mod ending;
mod process;

pub use contract::{Backend, Poll, Ticket};
pub use ending::ending;
pub use process::Processes;
