//! `quality.json`: where a checkpoint comes from, how good it is, and who loads it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Experts, Identity, Licence, ModuleQuality};
use crate::assign::{MixedGroups, Totals};
use crate::audit::engines::EngineVerdict;
use crate::protocol::{CalibrationSummary, Evaluation, NumericPath, SilentExperts};
use crate::recipe::Recipe;

/// Version of the file; bumped when a field changes its meaning. `tests/golden/quality/` holds one of each.
pub const VERSION: u32 = 1;

/// Its name in a checkpoint folder.
pub const FILE: &str = "quality.json";
/// Name of the model card.
pub const CARD: &str = "README.md";
/// Name under which the source's own card is kept.
pub const SOURCE_CARD: &str = "README.source.md";

/// What is told of one checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// [`VERSION`] of the program that wrote the file.
    pub version: u32,
    /// What it is made from and by.
    #[serde(flatten)]
    pub recorded: Recorded,
    /// Its figures.
    pub totals: Totals,
    /// Every quantized linear in model order.
    pub modules: Vec<ModuleQuality>,
    /// Tokens that routed experts saw; absent for dense models and without calibration.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub experts: Option<Experts>,
    /// What each engine does with it.
    pub engines: Vec<EngineVerdict>,
    /// What was measured; absent until an evaluation is done.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub measured: Option<Measured>,
}

/// What a checkpoint is made from and by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// The recipe, resolved.
    pub recipe: Recipe,
    /// What became of fused groups that the recipe gives mixed numerics.
    #[serde(skip_serializing_if = "MixedGroups::is_default", default)]
    pub mixed_groups: MixedGroups,
    /// What stood in for the statistics of experts that saw no token.
    #[serde(skip_serializing_if = "SilentExperts::is_default", default)]
    pub silent_experts: SilentExperts,
    /// Hash that names the assignment.
    pub assignment: String,
    /// The source model.
    pub source: Identity,
    /// Under which terms it may be used, as the source says.
    pub licence: Licence,
    /// What was calibrated on; absent where nothing was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub calibration: Option<CalibrationSummary>,
    /// What made it.
    pub tool: Tool,
}

/// The program that made a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// `qlaunch`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The instruction set that every figure was computed with.
    pub numeric_path: NumericPath,
}

/// A measurement of a checkpoint, and of its source where that was measured on the same tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The file of tokens.
    pub data: PathBuf,
    /// The figures.
    #[serde(flatten)]
    pub evaluation: Evaluation,
}

impl Quality {
    /// Everything that an algorithm could not do as it should, by module.
    pub fn fallbacks(&self) -> impl Iterator<Item = (&str, &super::Remark)> {
        self.modules
            .iter()
            .flat_map(|module| module.remarks.iter().map(|remark| (module.name.as_str(), remark)))
            .filter(|(_, remark)| remark.is_fallback())
    }
}
