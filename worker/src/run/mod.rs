//! One job, from its spec to its outcome.

mod begin;
mod building;
mod collection;
mod data;
mod device;
mod digests;
mod evaluation;
mod forward;
mod hidden;
mod job;
mod kept;
mod looks;
mod output;
mod place;
mod quantization;
mod team;

pub use job::run;
pub use place::Flags;
