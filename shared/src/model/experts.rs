//! Mixtures of experts: how many there are, in which layers, and how a router's scores become weights.

use serde_json::Value;

use super::Family;
use super::config::Fields;
use crate::Result;

/// The routed experts of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experts {
    /// Experts of a layer.
    pub count: usize,
    /// Experts that a token goes through.
    pub per_token: usize,
    /// Width inside an expert.
    pub intermediate_size: usize,
    /// What becomes of the probabilities of the chosen experts.
    pub weighting: Weighting,
    /// Per decoder layer, whether it has experts in place of an MLP.
    pub layers: Vec<bool>,
}

/// How the probabilities of the chosen experts become factors on their outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weighting {
    /// Whether they are divided by their sum.
    pub normalised: bool,
    /// Whether they are rounded to the model's type before they meet the outputs.
    pub rounded: bool,
}

impl Experts {
    /// Reads what a family's config says of experts; dense families have none.
    pub(super) fn parse(fields: &Fields<'_>, family: Family, layers: usize) -> Result<Option<Self>> {
        match family {
            Family::Qwen3Moe => Self::qwen3(fields, layers).map(Some),
            Family::Mixtral => Self::mixtral(fields, layers).map(Some),
            Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 | Family::Other => Ok(None),
        }
    }

    // Defaults are those of transformers' Qwen3MoeConfig.
    fn qwen3(fields: &Fields<'_>, layers: usize) -> Result<Self> {
        let dense = dense_layers(fields)?;
        let step = fields.count("decoder_sparse_step")?.unwrap_or(1);
        let experts = Self {
            // transformers 5 writes the second spelling.
            count: count(fields, ["num_experts", "num_local_experts"], 128)?,
            per_token: fields.count("num_experts_per_tok")?.unwrap_or(8),
            intermediate_size: fields.count("moe_intermediate_size")?.unwrap_or(768),
            weighting: Weighting {
                normalised: fields.flag("norm_topk_prob")?.unwrap_or(false),
                rounded: true,
            },
            layers: (0..layers).map(|layer| (layer + 1) % step == 0 && !dense.contains(&layer)).collect(),
        };
        experts.check(fields)
    }

    // Defaults are those of transformers' MixtralConfig.
    fn mixtral(fields: &Fields<'_>, layers: usize) -> Result<Self> {
        let experts = Self {
            count: count(fields, ["num_local_experts", "num_experts"], 8)?,
            per_token: fields.count("num_experts_per_tok")?.unwrap_or(2),
            intermediate_size: fields.required_count("intermediate_size")?,
            weighting: Weighting { normalised: true, rounded: false },
            layers: vec![true; layers],
        };
        experts.check(fields)
    }

    fn check(self, fields: &Fields<'_>) -> Result<Self> {
        if self.per_token > self.count {
            let message = format!("a token cannot go through {} of {} experts", self.per_token, self.count);
            return Err(fields.error("num_experts_per_tok", message));
        }
        if u32::try_from(self.count).is_err() {
            return Err(fields.error("num_experts", format!("{} experts are too many", self.count)));
        }
        Ok(self)
    }

    /// Experts that a token goes through where calibration is to reach a share of all of them: the model's own number, or
    /// `ratio` of the experts, rounded half to even, if that is more (`moe_calib_experts_ratio`, modelopt.md §2.3).
    pub fn widened(&self, ratio: f64) -> usize {
        let share = (self.count as f64 * ratio).round_ties_even() as usize;
        share.clamp(self.per_token, self.count)
    }
}

/// The number of experts under the first of two keys that is there.
fn count(fields: &Fields<'_>, keys: [&str; 2], default: usize) -> Result<usize> {
    let [first, second] = keys.map(|key| fields.count(key));
    Ok(first?.or(second?).unwrap_or(default))
}

/// Layers that `mlp_only_layers` names; those beyond the last one mean nothing, as in transformers.
fn dense_layers(fields: &Fields<'_>) -> Result<Vec<usize>> {
    const KEY: &str = "mlp_only_layers";
    let Some(value) = fields.get(KEY) else { return Ok(Vec::new()) };
    let wrong = || fields.error(KEY, format!("expected a list of layer numbers, found `{value}`"));
    let layer = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(wrong);
    value.as_array().ok_or_else(wrong)?.iter().map(layer).collect()
}
