//! Where jobs run: each backend can submit, find, poll and cancel.

mod contract;
mod docker;
mod docker_answers;
mod docker_refusal;
mod ending;
mod process;
mod process_answers;
mod slurm;
mod slurm_answers;
mod slurm_queue;
mod slurm_refusal;
#[cfg(test)]
mod slurm_refusal_tests;
#[cfg(test)]
mod slurm_transcripts;

pub use contract::{ArrayTicket, Backend, Handed, Poll, Ticket};
pub use docker::Docker;
pub use docker_refusal::refusal as docker_refusal;
pub use ending::{ending, witnessed};
pub use process::{Processes, Slots};
pub use slurm::Slurm;
