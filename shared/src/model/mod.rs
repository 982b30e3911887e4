//! A model told from `config.json` and safetensors headers: its modules, families and fused groups, no tensor data.

mod config;
mod family;
#[cfg(test)]
pub(crate) mod fixture;
mod modules;
mod open;
mod rope;
#[cfg(test)]
mod tests;

pub use config::{Activation, Biases, ModelConfig, read_json};
pub use family::Family;
pub use modules::{FusedGroup, Module, ModuleRole, modules_of};
pub use open::Model;
pub use rope::{Rope, RopeScaling};
