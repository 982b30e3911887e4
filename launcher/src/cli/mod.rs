//! The command line: one file for each command.

mod arguments;
mod doctor;
mod eval;
mod main;
mod plan;
mod portfolio;
mod quantize;
mod recipe;
mod submission;
mod submit;
mod values;

pub use main::main;
