//! Export: an assignment and its statistics to a checkpoint folder in ModelOpt's unified Hugging Face layout.

mod companions;
mod inputs;
mod production;
mod quality;
mod remarks;
mod report;

pub use inputs::{cache_rounding, input_amaxes};
pub use production::{Finished, Production, Sources};
pub use quality::{Learnt, Making, add_measurement, write_quality};
pub use report::Report;
