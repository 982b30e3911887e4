//! The house rules that a program can check, each as a function from text to faults; every fault says what to do.

mod dependencies;
mod files;
mod floors;
mod goldens;
mod imports;
mod tree;

pub use dependencies::{undocumented, unwanted};
pub use files::file_faults;
pub use floors::{Floors, LAUNCHER, WORKER, floor_faults, sideways_faults};
pub use goldens::{Version, missing_goldens, versions};
pub use imports::{code_only, crate_modules, foreign_imports};
pub use tree::{Source, rust_sources, text_files, workplace_mentions};
