//! Which linears are smoothed, and where their factors go (modelopt.md §4.6, §4.7, §6.2).

use std::collections::HashSet;

use super::algorithm::Algorithm;
use super::assignment::{Assignment, Smoothing};
use crate::model::{Family, Model, ModuleRole, QuantizerHome};
use crate::numerics::Format;
use crate::recipe::Pattern;

/// Sets smoothing and low-rank branches as the algorithm asks for them.
pub(super) fn place(assignment: &mut Assignment, model: &Model) {
    let Some(algorithm) = assignment.calibration.smoothing().cloned() else { return };
    let is_nvfp4 = |format: Format| matches!(format, Format::Nvfp4 { .. });
    let folds_into_linears = assignment.linears.first().is_some_and(|linear| is_nvfp4(linear.weight));
    let skipped: Vec<Pattern> = match &algorithm {
        Algorithm::SvdQuant(svd) => svd.skip_layers.iter().map(|pattern| Pattern::new(pattern)).collect(),
        _ => Vec::new(),
    };
    let quantized: HashSet<String> = assignment.linears.iter().map(|linear| linear.name.clone()).collect();
    for linear in &mut assignment.linears {
        let part = &model.modules[linear.module];
        if matches!(part.quantizer_home(), QuantizerHome::Experts { .. }) {
            // ModelOpt smooths linears alone, and fused experts are none.
            linear.smoothing = Smoothing::None;
            continue;
        }
        linear.smoothing = match &algorithm {
            Algorithm::SmoothQuant(_) => {
                let both = linear.weight == Format::Int8Channel
                    && linear.input.is_some_and(|input| input.format == Format::Int8);
                if both { Smoothing::Stored } else { Smoothing::None }
            }
            Algorithm::SvdQuant(svd) => {
                let skipped = skipped.iter().any(|pattern| pattern.matches(&linear.name));
                linear.low_rank = (!skipped).then_some(svd.lowrank);
                if skipped { Smoothing::None } else { Smoothing::Stored }
            }
            _ => {
                let awq = is_nvfp4(linear.weight)
                    || matches!(linear.weight, Format::Int4 { .. } | Format::Int4Fp8 { .. });
                let behind_norm = matches!(part.role, ModuleRole::Linear { group: Some(_), .. });
                let before = linear_before(model, &part.name).filter(|before| quantized.contains(before));
                let behind_linear = folds_into_linears && before.is_some();
                if awq && (behind_norm || behind_linear) { Smoothing::Folded } else { Smoothing::Stored }
            }
        };
    }
}

/// The linear that takes over the factors of this one: ModelOpt's pairs for NVFP4 are `up_proj` for `down_proj`, and `v_proj`
/// for `o_proj` where heads are not grouped, in the classes that it lists.
fn linear_before(model: &Model, name: &str) -> Option<String> {
    let listed = matches!(model.config.family, Family::Llama | Family::Qwen3 | Family::Qwen3Moe);
    let heads_alone = model.config.heads == model.config.kv_heads;
    if !listed {
        return None;
    }
    match name.rsplit_once('.') {
        Some((mlp, "down_proj")) if mlp.ends_with(".mlp") => Some(format!("{mlp}.up_proj")),
        Some((attention, "o_proj")) if heads_alone => Some(format!("{attention}.v_proj")),
        _ => None,
    }
}
