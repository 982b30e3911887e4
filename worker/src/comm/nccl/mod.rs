//! Messages between GPUs by NCCL, found at run time. Ranks meet over TCP, which also carries all that is small.

mod api;
mod communicator;
mod staging;
#[cfg(test)]
mod tests;

pub use api::version;
pub use communicator::{Nccl, Patience};
