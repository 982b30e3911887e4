//! The command line: one file for each command.

mod arguments;
mod eval;
mod main;
mod plan;
mod portfolio;
mod quantize;
mod recipe;
mod submit;
mod submission;
mod values;

pub use main::main;
