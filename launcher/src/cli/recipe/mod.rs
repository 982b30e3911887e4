//! `qlaunch recipe`: one file for each subcommand.

mod arguments;
mod check;
mod diff;
mod list;
mod new;
mod page;
mod show;

pub use arguments::{RecipeArgs, run};
