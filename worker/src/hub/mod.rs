//! Models and data files of the Hub: found in Hugging Face's cache, or brought there over HTTP.

mod bring;
mod cache;
mod client;
mod file;
mod listing;
mod places;

pub use bring::{Aim, bring};
pub use listing::{Asked, Kind};
pub use places::HubPlaces;
