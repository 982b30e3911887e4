//! A model told from `config.json` and safetensors headers: its modules, families and fused groups, no tensor data.

mod config;
#[cfg(test)]
mod expert_tests;
mod experts;
mod family;
#[cfg(test)]
pub(crate) mod fixture;
mod fused;
mod headers;
mod layers;
mod modules;
mod open;
mod parts;
mod rope;
mod survey;
#[cfg(test)]
mod survey_tests;
#[cfg(test)]
mod tests;

pub use config::{Activation, Biases, ModelConfig, read_json};
pub use experts::{Experts, Weighting};
pub use family::Family;
pub use layers::modules_of;
pub use modules::{FusedGroup, Module, ModuleRole};
pub use open::Model;
pub use parts::{Part, Projection, QuantizerHome};
pub use rope::{Rope, RopeScaling};
pub use survey::Survey;
