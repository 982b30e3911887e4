//! One job, from its spec to its outcome.

mod data;
mod evaluation;
mod job;
mod quantization;

pub use job::run;
