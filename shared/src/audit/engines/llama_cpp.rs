//! llama.cpp's converter to GGUF (`convert_hf_to_gguf.py`, `conversion/base.py`): what it repacks and what it dequantizes.

use super::declared::{Declared, MIXED};
use super::layers::served_layers;
use super::verdict::Faults;
use super::{Answer, Offered};
use crate::checkpoint::DType;
use crate::model::{Family, Module, ModuleRole, Part};

/// The copy in llama-cpp-python 0.3.36.
pub(super) const VERSION: &str = "ggml 0.25.3";

const METHOD: &str = "the converter must know the `quant_method`";
const SCALES: &str = "a weight that is not NVFP4 must have one scale, or one a row";
const REPACKED: &str = "NVFP4 is repacked in blocks of 16 and rows of whole 64s";
const NAMES: &str = "every tensor must have a name in GGUF";

pub(super) fn answer(offered: &Offered<'_>) -> Answer {
    let Some(declared) = Declared::flat(offered) else { return Answer::Loads };
    if declared.method != "modelopt" {
        return Answer::refuses(METHOD, format!("`{}` is unknown to it for these layouts", declared.method));
    }
    let repacks = repacks(offered, &declared);
    let mut faults = Faults::default();
    for layer in served_layers(offered.model) {
        for &(module, part) in &layer.shards {
            check(offered, (module, part), repacks, &mut faults);
        }
    }
    faults.answer(match offered.model.config.family {
        Family::Other => Answer::unknown("its rules were not read for this family"),
        _ => Answer::Loads,
    })
}

/// Whether weights with a scale a block are taken for NVFP4.
fn repacks(offered: &Offered<'_>, flat: &Declared<'_>) -> bool {
    // The file speaks unless config.json has an algorithm and a list of layers.
    let file = if flat.layers.is_some() { None } else { Declared::file(offered) };
    let declared = file.as_ref().unwrap_or(flat);
    let in_layers = declared.layer_algorithms().any(|name| name.ends_with("NVFP4"));
    matches!(declared.name(), "NVFP4" | "W4A16_NVFP4") || (declared.name() == MIXED && in_layers)
}

fn check(offered: &Offered<'_>, (module, part): (usize, &Module), repacks: bool, faults: &mut Faults) {
    let ModuleRole::Linear { rows, columns, .. } = part.role else { return };
    let Some(scale) = offered.find(module, "weight_scale") else {
        return check_names(offered, (module, part), &[], faults);
    };
    if !repacks || scale.shape.len() < 2 {
        if !(scale.shape.is_empty() || scale.shape == [1] || scale.shape == [rows]) {
            faults.add(SCALES, format!("`{}.weight_scale` is {:?}", part.name, scale.shape));
        }
        return check_names(offered, (module, part), &["input_scale"], faults);
    }
    let is_nvfp4 = scale.dtype == DType::F8E4M3 && scale.shape == [rows, columns / 16];
    if !is_nvfp4 || columns % 64 != 0 {
        let text =
            format!("`{}` has {columns} columns and scales of {} {:?}", part.name, scale.dtype, scale.shape);
        faults.add(REPACKED, text);
    }
    // Experts are put together by the names gate_proj, up_proj and down_proj.
    if let Part::Expert(_) = part.part
        && offered.model.config.family == Family::Mixtral
    {
        faults.add(NAMES, format!("`{}` in NVFP4 is not put together with the other experts", part.name));
    }
    check_names(offered, (module, part), &["weight_scale_2", "input_scale"], faults);
}

fn check_names(
    offered: &Offered<'_>,
    (module, part): (usize, &Module),
    dropped: &[&str],
    faults: &mut Faults,
) {
    let known = ["weight", "bias", "weight_scale", "k_scale", "v_scale"];
    let is_stranger = |suffix: &str| !known.contains(&suffix) && !dropped.contains(&suffix);
    if let Some(stranger) = offered.stored(module).iter().find(|stored| is_stranger(stored.suffix)) {
        faults.add(NAMES, format!("`{}.{}` has none", part.name, stranger.suffix));
    }
}
