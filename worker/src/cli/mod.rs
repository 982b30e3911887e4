//! The command line of the worker. People rarely type it: launchers do.

mod arguments;

pub use arguments::main;
