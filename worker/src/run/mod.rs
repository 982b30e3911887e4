//! One job, from its spec to its outcome.

mod again;
mod begin;
mod building;
mod collection;
mod data;
mod device;
mod digests;
mod evaluation;
mod forward;
mod job;
mod kept;
mod lookout;
mod looks;
mod measured;
#[cfg(test)]
mod memory_tests;
mod output;
mod place;
mod quantization;
mod relay;
mod team;
mod trail;
mod way;

pub use job::run;
pub use place::Flags;
