//! What ranks say to each other: one trait, carried by nothing (a single process), by TCP or, between GPUs, by NCCL.

mod contract;
mod hmac;
pub mod nccl;
mod single;
pub mod tcp;

pub use contract::{Communicator, Reduction, Tag};
pub use single::Single;
