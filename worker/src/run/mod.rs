//! One job, from its spec to its outcome.

mod building;
mod data;
mod evaluation;
mod job;
mod looks;
mod place;
mod quantization;
mod team;

pub use job::run;
pub use place::Flags;
