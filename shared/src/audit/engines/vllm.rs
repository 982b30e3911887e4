//! vLLM's loader for ModelOpt checkpoints (`layers/quantization/modelopt.py`, `quant_utils.py`, `models/*.py`).

use super::declared::{Declared, MIXED};
use super::exclusions::Exclusions;
use super::layers::{Kind, ServedLayer, served_layers};
use super::parameters::{UNQUANTIZED, Wanted, check_layer, check_shared};
use super::verdict::Faults;
use super::{Answer, Offered};
use crate::model::{Family, ModuleRole};
use crate::numerics::{Format, Nvfp4Scales};

/// The wheel that was read, and run in the serving lane.
pub(super) const VERSION: &str = "0.32.0";

/// `LINEAR_ALGOS`.
const ALGORITHMS: [&str; 6] =
    ["FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "NVFP4", "W4A16_NVFP4", "MXFP8"];
const KNOWN: &str = "`quant_algo` must be FP8, FP8_PER_CHANNEL_PER_TOKEN, FP8_PB_WO, NVFP4, W4A16_NVFP4, MXFP8 or MIXED_PRECISION";
const SHARDS: &str = "the linears of a fused layer must all be quantized alike or all be excluded";
const BLOCKS: &str = "FP8_PB_WO wants input features in whole blocks of 128, and a scale of four dimensions";
const ROWS: &str = "FP8_PB_WO wants rows in whole blocks of 128 of every linear but the last that is fused";
const EXPERTS: &str = "experts are known in FP8, NVFP4, W4A16_NVFP4 and MXFP8 only";
const EMPTY: &str = "MIXED_PRECISION wants a `quantized_layers` that is not empty";

pub(super) fn answer(offered: &Offered<'_>) -> Answer {
    let declared = Declared::flat(offered).or_else(|| Declared::file(offered));
    let mut faults = Faults::default();
    if let Some(declared) = &declared {
        if !declared.method.starts_with("modelopt") {
            return foreign(declared.method);
        }
        let algorithm = declared.name().to_uppercase();
        if algorithm != MIXED && !ALGORITHMS.contains(&algorithm.as_str()) {
            return Answer::refuses(KNOWN, format!("it is `{}`", declared.name()));
        }
        if algorithm == MIXED && declared.layer_algorithms().next().is_none() {
            return Answer::refuses(EMPTY, "it lists no layer");
        }
    }
    let declared = declared.map(|declared| (exclusions(&declared.ignore), declared));
    for layer in served_layers(offered.model) {
        check(offered, declared.as_ref(), &layer, &mut faults);
    }
    faults.answer(match offered.model.config.family {
        Family::Other => Answer::unknown("its rules were not read for this family"),
        _ => Answer::Loads,
    })
}

fn foreign(method: &str) -> Answer {
    match method {
        // It left vLLM's core with 0.32.
        "bitsandbytes" => Answer::refuses(
            "the quantization method must be one of vLLM's own",
            "`bitsandbytes` is none of them any more",
        ),
        other => Answer::unknown(format!("its rules for `quant_method: {other}` were not read")),
    }
}

fn check(
    offered: &Offered<'_>,
    declared: Option<&(Exclusions, Declared<'_>)>,
    layer: &ServedLayer<'_>,
    faults: &mut Faults,
) {
    let Some(algorithm) = declared.and_then(|declared| algorithm(offered, declared, layer, faults)) else {
        return check_layer(offered, layer, Wanted::PLAIN, faults);
    };
    let Some(wanted) = wanted(&algorithm) else {
        // An unknown name in `quantized_layers` is no error: the layer is built unquantized.
        return faults.add(UNQUANTIZED, format!("`{}` is declared `{algorithm}`", layer.name));
    };
    if layer.kind == Kind::Experts && matches!(algorithm.as_str(), "FP8_PER_CHANNEL_PER_TOKEN" | "FP8_PB_WO")
    {
        faults.add(EXPERTS, format!("`{}` is {algorithm}", layer.name));
        return;
    }
    if algorithm == "FP8_PB_WO" {
        check_blocks(offered, layer, faults);
    }
    check_layer(offered, layer, wanted, faults);
    if algorithm.contains("NVFP4") {
        check_shared(offered, layer, &["weight_scale_2", "input_scale"], faults);
    }
}

/// ModelOpt writes a single square's scale as a scalar, which no parameter of four dimensions takes.
fn check_blocks(offered: &Offered<'_>, layer: &ServedLayer<'_>, faults: &mut Faults) {
    for (place, &(module, part)) in layer.shards.iter().enumerate() {
        let ModuleRole::Linear { rows, columns, .. } = part.role else { continue };
        // Places in the fused scale are counted in whole squares, rounded up: whatever follows a part of one slips.
        let is_last = place + 1 == layer.shards.len();
        if layer.kind == Kind::Fused && !is_last && rows % 128 != 0 {
            faults.add(ROWS, format!("`{}` has {rows} of `{}`", part.name, layer.name));
        }
        let scale = offered.find(module, "weight_scale").map(|scale| scale.shape.len());
        if columns % 128 != 0 {
            faults.add(BLOCKS, format!("`{}` has {columns} input features", part.name));
        } else if scale.is_some_and(|dimensions| dimensions != 4) {
            faults.add(BLOCKS, format!("`{}.weight_scale` is of another shape", part.name));
        }
    }
}

/// The parameters of a layer with this algorithm.
fn wanted(algorithm: &str) -> Option<Wanted> {
    let nvfp4 = Format::Nvfp4 { block: 16, scales: Nvfp4Scales::Dynamic };
    Some(match algorithm {
        "FP8" => Wanted::scaled(Format::Fp8),
        "FP8_PER_CHANNEL_PER_TOKEN" => Wanted::weight(Format::Fp8Channel),
        "FP8_PB_WO" => Wanted::weight(Format::Fp8Block { block: 128 }),
        "NVFP4" => Wanted::scaled(nvfp4),
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
    // Mixtral's router is built without a quantization config.
    if layer.is_router() && offered.model.config.family == Family::Mixtral {
        return None;
    }
    let excluded = excluded(exclusions, layer).unwrap_or_else(|evidence| {
        faults.add(SHARDS, evidence);
        true
    });
    if excluded {
        return None;
    }
    let name = declared.name().to_uppercase();
    if name == MIXED {
        return mixed(declared, layer, faults).map(str::to_uppercase);
    }
    // Groups without activations turn NVFP4 into its weight-only kind.
    let without_inputs = |groups: &serde_json::Map<String, serde_json::Value>| {
        !groups.is_empty() && groups.values().all(|group| group["input_activations"].is_null())
    };
    if name == "NVFP4" && declared.groups.is_some_and(without_inputs) {
        return Some("W4A16_NVFP4".to_owned());
    }
    Some(name)
}

/// What `quantized_layers` says of a layer.
fn mixed<'a>(declared: &Declared<'a>, layer: &ServedLayer<'_>, faults: &mut Faults) -> Option<&'a str> {
    let below = |prefix: &str| declared.first_below(&format!("{prefix}."));
    match layer.kind {
        Kind::Single => declared.layer(&layer.name).or_else(|| below(&layer.name)),
        Kind::Fused => {
            let mut found: Vec<&str> = layer.names().filter_map(|name| declared.layer(name)).collect();
            found.sort_unstable();
            found.dedup();
            if found.len() > 1 {
                faults.add(SHARDS, format!("`{}` is {}", layer.name, found.join(" and ")));
            }
            found.first().copied().or_else(|| below(&layer.name))
        }
        // Whatever stands beside the experts speaks for them when they are not listed themselves.
        Kind::Experts => below(&layer.name).or_else(|| below(layer.name.trim_end_matches(".experts"))),
    }
}

/// The patterns as vLLM rewrites them: `NAME*` is read as `NAME` and `NAME.*`.
fn exclusions(ignore: &[&str]) -> Exclusions {
    Exclusions::new(ignore.iter().flat_map(|pattern| {
        match pattern.strip_suffix('*').filter(|stem| !stem.is_empty() && !stem.ends_with('.')) {
            Some(stem) => vec![stem.to_owned(), format!("{stem}.*")],
            None => vec![(*pattern).to_owned()],
        }
    }))
}

/// Three rules, any of which excludes a layer; an error where some shards are excluded and others not.
fn excluded(exclusions: &Exclusions, layer: &ServedLayer<'_>) -> Result<bool, String> {
    if exact(exclusions, layer)? {
        return Ok(true);
    }
    // Any pattern that is part of the name: `model.layers.1` excludes `model.layers.10` as well.
    Ok(exclusions.written().any(|pattern| layer.name.contains(pattern)) || exclusions.fit(&layer.name))
}

fn exact(exclusions: &Exclusions, layer: &ServedLayer<'_>) -> Result<bool, String> {
    let named = |name: &str| exclusions.names(name);
    match layer.kind {
        Kind::Single => Ok(named(&layer.name)),
        // One excluded expert excludes them all.
        Kind::Experts => Ok(exclusions.written().any(|pattern| pattern.contains(&layer.name))),
        Kind::Fused if named(&layer.name) => Ok(true),
        Kind::Fused => layer.all_or_none(named),
    }
}
