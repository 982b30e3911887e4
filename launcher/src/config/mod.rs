//! Settings in layers, where each value came from, and the files that are built in.

mod embedded;
mod layer;
mod library;
mod settings;
mod surroundings;

pub use embedded::{template, template_names};
pub use library::library;
pub use settings::{Overrides, Profile, Settings};
pub use surroundings::Surroundings;
