//! A recipe resolved against a model: which module gets which numerics, and what that costs.

mod algorithm;
mod assignment;
mod build;
mod plan;
mod quantizers;
mod tensors;
#[cfg(test)]
mod tests;
mod totals;

pub use algorithm::Algorithm;
pub use assignment::{ActivationNumerics, Amax, Assignment, CacheNumerics, LinearNumerics};
pub use build::{Resolved, plan, resolve};
pub use plan::{Coverage, ModuleKind, ModulePlan, PatternReach, Plan, Totals};
pub use tensors::{ModuleTensors, checkpoint_layout, checkpoint_tensors};
