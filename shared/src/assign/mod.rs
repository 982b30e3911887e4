//! A recipe resolved against a model: which module gets which numerics, and what that costs.

pub mod algorithm;
mod algorithm_options;
mod assignment;
mod build;
mod coverage;
mod declaration;
mod families;
mod fates;
#[cfg(test)]
mod group_tests;
mod groups;
mod names;
mod needs;
mod notes;
mod numerics;
mod pieces;
mod plan;
#[cfg(test)]
mod quantizer_tests;
mod quantizers;
mod resolution;
mod smoothing;
mod tensors;
#[cfg(test)]
mod tests;
mod totals;

pub use algorithm::{Algorithm, Calibration};
pub use assignment::{ActivationNumerics, Amax, Assignment, CacheNumerics, LinearNumerics, Smoothing};
pub use build::{Aims, Resolved, plan, resolve, resolve_with};
pub use declaration::quantization_config;
pub use families::ModuleFamily;
pub use groups::{GroupChange, MixedGroups};
pub use needs::{Clipped, Needs, TOGETHER, clipped};
pub use notes::{Note, Topic};
pub use pieces::Piece;
pub use plan::{Coverage, FamilyCoverage, ModuleKind, ModulePlan, PatternReach, Plan, Totals};
pub use resolution::Resolution;
pub use tensors::{Grouping, ModuleTensors, checkpoint_layout, checkpoint_tensors};
