//! One job, from its spec to its outcome.

mod building;
mod data;
mod evaluation;
mod job;
mod looks;
mod quantization;

pub use job::run;
