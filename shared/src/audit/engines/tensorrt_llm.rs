//! TensorRT-LLM's PyTorch backend (`_torch/model_config.py`, `quantization/modelopt_config.py`, `_torch/modules/linear.py`).

use super::declared::{Declared, MIXED};
use super::exclusions::Exclusions;
use super::layers::{Kind, ServedLayer, served_layers};
use super::parameters::{Wanted, check_layer, check_shared};
use super::verdict::Faults;
use super::{Answer, Offered};
use crate::model::Family;
use crate::numerics::{Format, Nvfp4Scales};

/// There is no release with all that was read.
pub(super) const VERSION: &str = "main of November 2026";

const FILE: &str = "`hf_quant_config.json` is the authority";
const KNOWN: &str = "`quant_algo` must be a member of `QuantAlgo`, or `fp8_pb_wo` of the whole";
const LINEAR: &str = "the PyTorch backend must have a linear for the algorithm";
const CACHE: &str = "the cache must be FP8, INT8 or NVFP4";
const BLOCK: &str = "NVFP4 kernels take blocks of 16";

/// What a name of ModelOpt's is there.
enum Known {
    /// A linear with these parameters.
    Linear(Wanted),
    /// A name without a linear.
    NoLinear,
    /// No name.
    Nothing,
}

pub(super) fn answer(offered: &Offered<'_>) -> Answer {
    let Some(declared) = Declared::file(offered) else {
        return match &offered.config {
            None => Answer::Loads,
            Some(config) if config["quant_method"] == "modelopt" => {
                Answer::refuses(FILE, "the file is missing")
            }
            Some(config) => Answer::unknown(format!(
                "its rules for `quant_method: {}` were not read",
                config["quant_method"]
            )),
        };
    };
    let mut faults = Faults::default();
    if let Some(cache) =
        offered.file.as_ref().and_then(|file| file["quantization"]["kv_cache_quant_algo"].as_str())
        && !["FP8", "INT8", "NVFP4"].contains(&cache)
    {
        faults.add(CACHE, format!("it is `{cache}`"));
    }
    if declared.name() != MIXED && declared.algorithm.is_some() {
        let algorithm = whole(declared.name());
        match known(algorithm) {
            Known::Linear(_) => {}
            Known::NoLinear => {
                return Answer::refuses(LINEAR, format!("it has none for `{}`", declared.name()));
            }
            Known::Nothing => return Answer::refuses(KNOWN, format!("it is `{}`", declared.name())),
        }
    }
    // Every name of the list is looked up, whoever reads it later.
    for algorithm in declared.layer_algorithms() {
        if matches!(known(algorithm), Known::Nothing) {
            return Answer::refuses(KNOWN, format!("a layer is `{algorithm}`"));
        }
    }
    let mut unread = None;
    let declared = (Exclusions::new(declared.ignore.iter().copied()), declared);
    for layer in served_layers(offered.model) {
        check(offered, &declared, &layer, (&mut faults, &mut unread));
    }
    faults.answer(match (offered.model.config.family, unread) {
        (Family::Other, _) => Answer::unknown("its rules were not read for this family"),
        (_, Some(algorithm)) => {
            Answer::unknown(format!("its rules for experts in `{algorithm}` were not read"))
        }
        _ => Answer::Loads,
    })
}

/// The alias that is understood of the whole, and of no layer.
fn whole(name: &str) -> &str {
    if name == "fp8_pb_wo" { "FP8_BLOCK_SCALES" } else { name }
}

fn check(
    offered: &Offered<'_>,
    declared: &(Exclusions, Declared<'_>),
    layer: &ServedLayer<'_>,
    (faults, unread): (&mut Faults, &mut Option<String>),
) {
    let Some(algorithm) = algorithm(declared, layer) else {
        return check_layer(offered, layer, Wanted::PLAIN, faults);
    };
    let wanted = match known(algorithm) {
        Known::Linear(wanted) => wanted,
        Known::NoLinear => return faults.add(LINEAR, format!("`{}` is {algorithm}", layer.name)),
        Known::Nothing => return faults.add(KNOWN, format!("`{}` is `{algorithm}`", layer.name)),
    };
    if layer.kind == Kind::Experts {
        let read = ["FP8", "FP8_BLOCK_SCALES", "NVFP4", "W4A16_NVFP4"];
        if !read.contains(&algorithm) {
            unread.get_or_insert_with(|| algorithm.to_owned());
        }
    }
    let block = declared.1.group_size.unwrap_or(16);
    if matches!(algorithm, "NVFP4" | "NVFP4_AWQ" | "W4A16_NVFP4") && block != 16 {
        return faults.add(BLOCK, format!("its blocks are of {block}"));
    }
    check_layer(offered, layer, wanted, faults);
    if algorithm.contains("NVFP4") {
        // An assertion in the loader of fused layers.
        check_shared(offered, layer, &["weight_scale_2", "input_scale"], faults);
    }
}

fn known(algorithm: &str) -> Known {
    let nvfp4 = Format::Nvfp4 { block: 16, scales: Nvfp4Scales::Dynamic };
    let int4 = Format::Int4 { block: 128 };
    Known::Linear(match algorithm {
        "FP8" => Wanted::scaled(Format::Fp8),
        "FP8_PER_CHANNEL_PER_TOKEN" => Wanted::weight(Format::Fp8Channel),
        "FP8_BLOCK_SCALES" => Wanted::weight(Format::Fp8Block { block: 128 }),
        "NVFP4" => Wanted::scaled(nvfp4),
        "NVFP4_AWQ" => Wanted::scaled(nvfp4).smoothed(),
        "W4A16_NVFP4" => Wanted::weight(nvfp4).dropping_input_scale(),
        "W4A8_NVFP4_FP8" => Wanted::scaled(Format::Nvfp4 { block: 32, scales: Nvfp4Scales::UnderFp8 }),
        "W4A8_MXFP4_FP8" => Wanted::weight(Format::Mxfp4).dropping_input_scale(),
        "MXFP8" => Wanted::weight(Format::Mxfp8),
        "W4A16_AWQ" => Wanted::weight(int4).smoothed(),
        "W4A8_AWQ" => Wanted::scaled(Format::Int4Fp8 { block: 128 }).smoothed(),
        "W8A16" => Wanted::weight(Format::Int8Channel),
        "W8A8_SQ_PER_CHANNEL" | "W4A16" | "W4A16_GPTQ" => return Known::NoLinear,
        _ => return Known::Nothing,
    })
}

/// The algorithm that a layer is built with; `None` builds it unquantized.
fn algorithm<'a>(
    (exclusions, declared): &(Exclusions, Declared<'a>),
    layer: &ServedLayer<'_>,
) -> Option<&'a str> {
    // Routers are built without a quantization config.
    if layer.is_router() {
        return None;
    }
    if declared.name() == MIXED {
        return match layer.kind {
            Kind::Single => declared.layer(&layer.name),
            Kind::Fused | Kind::Experts => layer.names().find_map(|name| declared.layer(name)),
        };
    }
    let excluded = excludes(exclusions, &layer.name) || layer.names().any(|name| excludes(exclusions, name));
    (!excluded).then(|| declared.algorithm.map(whole)).flatten()
}

/// Case counts, and a pattern that fits a module above excludes all below.
fn excludes(exclusions: &Exclusions, name: &str) -> bool {
    let mut above = name.match_indices('.').map(|(dot, _)| &name[..dot]);
    exclusions.fit(name) || above.any(|parent| exclusions.fit(parent))
}
