//! Where jobs run: each backend can submit, find, poll and cancel.

mod backend;
mod ending;
mod process;

pub use backend::{Backend, Poll, Ticket};
pub use ending::ending;
pub use process::Processes;
