//! Recipes: ModelOpt's YAML, found, composed, checked and resolved.

mod auto_quantize;
mod body;
mod config;
mod definition;
mod entry;
mod fnmatch;
mod imports;
mod library;
mod load;
mod names;
mod overrides;
mod patterns;
mod raw;
mod read;
mod schema;
mod sections;
mod training;

pub use auto_quantize::{AutoQuantize, Constraints, CostModel, CostParameters, ScoringMethod, SearchSpace};
pub use body::{Body, Form, Metadata, Origin, Recipe, RecipeType};
pub use config::QuantizeConfig;
pub use definition::{Definition, Kind, Listing, define, list};
pub use entry::{EntryOrigin, QuantizerCfg, QuantizerEntry};
pub use fnmatch::{Pattern, fnmatch};
pub use library::Library;
pub use load::load_recipe;
pub use names::Renamed;
pub use patterns::Patterns;

#[cfg(test)]
mod error_tests;
#[cfg(test)]
mod import_tests;
#[cfg(test)]
mod library_tests;
#[cfg(test)]
mod search_tests;
#[cfg(test)]
mod workbench;
