//! SGLang's loader for ModelOpt checkpoints (`configs/model_config.py`, `layers/quantization/{modelopt_quant,fp8}.py`).

use super::declared::{Declared, MIXED};
use super::exclusions::Exclusions;
use super::layers::{Kind, ServedLayer, served_layers};
use super::parameters::{UNQUANTIZED, Wanted, check_layer, check_shared};
use super::verdict::Faults;
use super::{Answer, Offered};
use crate::model::Family;
use crate::numerics::{Format, Nvfp4Scales};

/// The wheel that was read.
pub(super) const VERSION: &str = "0.5.23";

const KNOWN: &str = "`quant_algo` must be exactly FP8, NVFP4, NVFP4_AWQ, W4A16_NVFP4, MXFP8, or MIXED_PRECISION with an NVFP4 layer";
const W4AFP8: &str = "MIXED_PRECISION without an NVFP4 or W4A16_NVFP4 layer is taken for W4AFP8";
const SHARDS: &str = "the linears of a fused layer must all be quantized alike or all be excluded";
const BLOCK: &str = "NVFP4 kernels take blocks of 16";
const RENAMED: &str = "scales of MXFP8 and FP8 blocks are looked for as `weight_scale_inv`";

pub(super) fn answer(offered: &Offered<'_>) -> Answer {
    let declared = Declared::flat(offered).or_else(|| Declared::file(offered));
    let mut faults = Faults::default();
    if let Some(declared) = &declared {
        if declared.method != "modelopt" {
            return Answer::unknown(format!(
                "its rules for `quant_method: {}` were not read",
                declared.method
            ));
        }
        match declared.name() {
            "FP8" | "NVFP4" | "NVFP4_AWQ" | "W4A16_NVFP4" => {}
            "MXFP8" if matches!(offered.model.config.family, Family::Llama | Family::Mistral) => {
                // The loader renames `weight_scale` for MXFP8, and the model class renames it back.
                return Answer::refuses(
                    RENAMED,
                    "the class of Llama and Mistral names them `weight_scale` again",
                );
            }
            "MXFP8" => {}
            MIXED => {
                let is_nvfp4 = |name: &str| matches!(name.to_uppercase().as_str(), "NVFP4" | "W4A16_NVFP4");
                if !declared.layer_algorithms().any(is_nvfp4) {
                    return Answer::refuses(W4AFP8, "it has none");
                }
            }
            other => return Answer::refuses(KNOWN, format!("it is `{other}`")),
        }
    }
    let declared = declared.map(|declared| (Exclusions::new(declared.ignore.iter().copied()), declared));
    for layer in served_layers(offered.model) {
        check(offered, declared.as_ref(), &layer, &mut faults);
    }
    faults.answer(match offered.model.config.family {
        Family::Other => Answer::unknown("its rules were not read for this family"),
        _ => Answer::Loads,
    })
}

fn check(
    offered: &Offered<'_>,
    declared: Option<&(Exclusions, Declared<'_>)>,
    layer: &ServedLayer<'_>,
    faults: &mut Faults,
) {
    let algorithm =
        declared.and_then(|declared| Some((&declared.1, algorithm(offered, declared, layer, faults)?)));
    let Some((declared, algorithm)) = algorithm else {
        return check_layer(offered, layer, Wanted::PLAIN, faults);
    };
    let block = declared.group_size.or_else(|| declared.first_block()).unwrap_or(16);
    if algorithm.contains("NVFP4") && block != 16 {
        return faults.add(BLOCK, format!("its blocks are of {block}"));
    }
    let is_mixed = declared.name() == MIXED;
    let Some(wanted) = wanted(&algorithm) else {
        let rule = if algorithm == "FP8_PB_WO" { RENAMED } else { UNQUANTIZED };
        return faults.add(rule, format!("`{}` is declared `{algorithm}`", layer.name));
    };
    if is_mixed && algorithm == "MXFP8" {
        return faults.add(RENAMED, format!("`{}` of a mixed checkpoint has `weight_scale`", layer.name));
    }
    // Experts have no factors on their input.
    let wanted =
        if layer.kind != Kind::Experts && algorithm == "NVFP4_AWQ" { wanted.smoothed() } else { wanted };
    check_layer(offered, layer, wanted, faults);
    if algorithm.contains("NVFP4") {
        check_shared(offered, layer, &["weight_scale_2", "input_scale"], faults);
    }
}

fn wanted(algorithm: &str) -> Option<Wanted> {
    let nvfp4 = Format::Nvfp4 { block: 16, scales: Nvfp4Scales::Dynamic };
    Some(match algorithm {
        "FP8" => Wanted::scaled(Format::Fp8),
        "NVFP4" | "NVFP4_AWQ" => Wanted::scaled(nvfp4),
        "W4A16_NVFP4" => Wanted::weight(nvfp4).dropping_input_scale(),
        "MXFP8" => Wanted::weight(Format::Mxfp8),
        _ => return None,
    })
}

/// The algorithm that a layer is built with; `None` builds it unquantized.
fn algorithm(
    offered: &Offered<'_>,
    (exclusions, declared): &(Exclusions, Declared<'_>),
    layer: &ServedLayer<'_>,
    faults: &mut Faults,
) -> Option<String> {
    if layer.is_router() && offered.model.config.family == Family::Mixtral {
        return None;
    }
    // Native MXFP8 quantizes no head.
    if declared.name() == "MXFP8" && layer.name == "lm_head" {
        return None;
    }
    let globs = declared.name() != "MXFP8";
    let excluded = excluded(exclusions, layer, globs).unwrap_or_else(|evidence| {
        faults.add(SHARDS, evidence);
        true
    });
    if excluded {
        return None;
    }
    match declared.name() {
        MIXED => mixed(declared, layer, faults).map(str::to_uppercase),
        name => Some(name.to_owned()),
    }
}

fn mixed<'a>(declared: &Declared<'a>, layer: &ServedLayer<'_>, faults: &mut Faults) -> Option<&'a str> {
    let below = declared.first_below(&format!("{}.", layer.name));
    if layer.kind != Kind::Fused {
        return declared.layer(&layer.name).or(below);
    }
    let mut found: Vec<&str> = layer.names().filter_map(|name| declared.layer(name)).collect();
    found.sort_unstable();
    found.dedup();
    if found.len() > 1 {
        faults.add(SHARDS, format!("`{}` is {}", layer.name, found.join(" and ")));
    }
    found.first().copied().or(below)
}

/// Paths that end at dots, all or none of a fused layer; then globs over the path and over every part of it.
fn excluded(exclusions: &Exclusions, layer: &ServedLayer<'_>, globs: bool) -> Result<bool, String> {
    let within = |name: &str| exclusions.lie_within(name);
    match layer.kind {
        Kind::Single if within(&layer.name) => return Ok(true),
        Kind::Experts if within(&layer.name) => return Ok(true),
        Kind::Fused if layer.all_or_none(within)? => return Ok(true),
        Kind::Single | Kind::Experts | Kind::Fused => {}
    }
    let by_glob = || exclusions.fit(&layer.name) || layer.name.split('.').any(|part| exclusions.fit(part));
    Ok(globs && by_glob())
}
