//! Where jobs run: each backend can submit, find, poll and cancel.

mod contract;
mod ending;
mod process;
mod slurm;
mod slurm_answers;
mod slurm_queue;
mod slurm_refusal;

pub use contract::{Backend, Handed, Poll, Ticket};
pub use ending::{ending, witnessed};
pub use process::Processes;
pub use slurm::Slurm;
