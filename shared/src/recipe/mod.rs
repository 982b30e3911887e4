//! Recipes: ModelOpt's YAML, found, composed, checked and resolved.

mod auto_quantize;
mod body;
mod compare;
mod config;
mod definition;
mod entry;
mod examine;
mod faults;
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
mod typed;

pub use auto_quantize::{AutoQuantize, Constraints, CostModel, CostParameters, ScoringMethod, SearchSpace};
pub use body::{Body, Form, Metadata, Origin, Recipe, RecipeType};
pub use compare::{Change, Comparison, EntryChange, SettingChange, compare};
pub use config::QuantizeConfig;
pub use definition::{Definition, Kind, Listing, define, list};
pub use entry::{EntryOrigin, QuantizerCfg, QuantizerEntry, WrittenAt};
pub use examine::{Examination, examine};
pub use fnmatch::{Pattern, fnmatch};
pub use library::Library;
pub use load::load_recipe;
pub use names::Renamed;
pub use patterns::Patterns;

#[cfg(test)]
mod error_tests;
#[cfg(test)]
mod examine_tests;
#[cfg(test)]
mod import_tests;
#[cfg(test)]
mod library_tests;
#[cfg(test)]
mod search_tests;
#[cfg(test)]
mod workbench;
