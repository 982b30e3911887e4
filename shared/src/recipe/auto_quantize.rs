//! What an AutoQuantize recipe asks for: a budget of bits, and the formats to spend it on.

use serde::{Deserialize, Serialize};

use super::config::QuantizeConfig;
use crate::numerics::Fault;
use crate::numerics::field::{Field, given};

/// ModelOpt's `AutoQuantizeConfig`; defaults stand in the accessors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoQuantize {
    /// The budget.
    pub constraints: Constraints,
    /// Formats to choose from for modules outside the search spaces; leaving a module as it is is always a choice.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub candidate_formats: Option<Vec<QuantizeConfig>>,
    /// Formats to choose from for certain modules.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub module_search_spaces: Option<Vec<SearchSpace>>,
    /// How a format's harm to a module is measured (gradient).
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub auto_quantize_method: Option<ScoringMethod>,
    /// Samples that the harm is measured on (128).
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub score_size: Option<u64>,
    /// Patterns of modules that are left as they are.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub disabled_layers: Option<Vec<String>>,
    /// Patterns of modules that do not count towards the budget.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub cost_excluded_layers: Option<Vec<String>>,
    /// The KV cache, after the search.
    #[serde(default, skip_serializing_if = "Field::is_unset")]
    pub kv_cache: Field<QuantizeConfig>,
}

/// The budget of a search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraints {
    /// Average bits per weight, in (0, 16] (4.8).
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub effective_bits: Option<f64>,
    /// What a weight counts (weight).
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub cost_model: Option<CostModel>,
    /// Parameters of the cost model.
    #[serde(default, skip_serializing_if = "Field::is_unset")]
    pub cost: Field<CostParameters>,
}

/// What a weight counts towards the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostModel {
    /// All weights count alike.
    Weight,
    /// Weights of routed experts count by how many experts a token uses.
    ActiveMoe,
}

/// Parameters of a cost model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostParameters {
    /// Share of routed experts that a token uses, in (0, 1].
    #[serde(default, skip_serializing_if = "Field::is_unset")]
    pub active_moe_expert_ratio: Field<f64>,
}

/// How a format's harm to a module is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoringMethod {
    /// Taylor expansion with squared gradients.
    Gradient,
    /// Divergence of the model's output.
    KlDiv,
}

/// Formats to choose from for certain modules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchSpace {
    /// Patterns of the modules.
    #[serde(default)]
    pub module_name_patterns: Vec<String>,
    /// The formats.
    #[serde(default)]
    pub candidate_formats: Vec<QuantizeConfig>,
    /// Whether leaving a module as it is is a choice (true).
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    pub allow_no_quant: Option<bool>,
}

impl AutoQuantize {
    /// The budget in average bits per weight.
    pub fn effective_bits(&self) -> f64 {
        self.constraints.effective_bits.unwrap_or(4.8)
    }

    /// How a format's harm is measured.
    pub fn method(&self) -> ScoringMethod {
        self.auto_quantize_method.unwrap_or(ScoringMethod::Gradient)
    }

    /// Samples that the harm is measured on.
    pub fn score_size(&self) -> u64 {
        self.score_size.unwrap_or(128)
    }

    /// Checks the rules over several keys, knowing whether the recipe has a fixed baseline.
    pub(super) fn check(&self, has_baseline: HasBaseline) -> Result<(), Fault> {
        let fault = |key, message: &str| Err(Fault { key, message: message.to_owned() });
        let global = self.candidate_formats.as_ref().is_some_and(|formats| !formats.is_empty());
        let spaces = self.module_search_spaces.as_deref().unwrap_or_default();
        self.check_numbers()?;
        if spaces.iter().any(|space| space.module_name_patterns.is_empty()) {
            return fault(
                "module_search_spaces",
                "a search space needs at least one entry in `module_name_patterns`",
            );
        }
        if spaces.iter().any(|space| space.candidate_formats.is_empty()) {
            return fault(
                "module_search_spaces",
                "a search space needs at least one entry in `candidate_formats`",
            );
        }
        match (has_baseline, global, spaces.is_empty()) {
            (HasBaseline::Yes, true, _) => fault(
                "candidate_formats",
                "with a `quantize` baseline, searched modules stand in `module_search_spaces`, \
                 not in `candidate_formats`",
            ),
            (HasBaseline::Yes, false, true) => {
                fault("", "with a `quantize` baseline, `module_search_spaces` needs at least one entry")
            }
            (HasBaseline::No, false, _) => {
                fault("", "without a `quantize` baseline, `candidate_formats` needs at least one entry")
            }
            _ => Ok(()),
        }
    }

    fn check_numbers(&self) -> Result<(), Fault> {
        let bits = self.effective_bits();
        if !(bits > 0.0 && bits <= 16.0) {
            let message = format!("`effective_bits` is {bits}, and must be above 0 and at most 16");
            return Err(Fault { key: "constraints", message });
        }
        let ratio = self.constraints.cost.value().and_then(|cost| cost.active_moe_expert_ratio.value());
        match ratio {
            Some(ratio) if !(*ratio > 0.0 && *ratio <= 1.0) => {
                let message =
                    format!("`active_moe_expert_ratio` is {ratio}, and must be above 0 and at most 1");
                Err(Fault { key: "constraints", message })
            }
            _ => Ok(()),
        }
    }
}

/// Whether an AutoQuantize recipe fixes a baseline with `quantize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HasBaseline {
    Yes,
    No,
}
