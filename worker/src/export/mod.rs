//! Export: an assignment and its statistics to a checkpoint folder in ModelOpt's unified Hugging Face layout.

mod companions;
mod scales;
mod write;

pub use write::{Export, export};
