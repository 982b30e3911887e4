//! `journal.jsonl`: what the launcher meant to do and what became of it. Intent is written before effect.

mod entry;
mod file;

pub use entry::{ArrayTask, Ending, Entry, Handle, JobName, Line, Loss, Process, VERSION};
pub use file::{Journal, parse};
