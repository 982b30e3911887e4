//! Names of other releases: what ModelOpt has called its recipes before and since 0.47, and short names.

use super::library::{Library, Location};

/// A recipe that was found under another name than the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// The name that was asked for.
    pub asked: String,
    /// The name in the library.
    pub found: String,
}

impl std::fmt::Display for Renamed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` is called `{}` here", self.asked, self.found)
    }
}

const MODEL_PRESETS: &str = "configs/ptq/presets/model";

/// Recipes of our own, of formats that ModelOpt has none for.
const OWN: &str = "qlaunch/ptq";

/// Formats that were renamed when 0.47 dropped its deprecated names.
const FORMATS: [(&str, &str); 8] = [
    ("int8_sq", "int8_smoothquant"),
    ("int8_wo", "int8_weight_only"),
    ("w4a8_awq", "w4a8_awq_beta"),
    ("nvfp4_awq", "nvfp4_awq_lite"),
    ("nvfp4_mse", "nvfp4_w4a4_weight_mse_fp8_sweep"),
    ("nvfp4_local_hessian", "nvfp4_w4a4_weight_local_hessian"),
    ("fp8_pb_wo", "fp8_2d_blockwise_weight_only"),
    ("fp8_pc_pt", "fp8_per_channel_per_token"),
];

/// Constants of ModelOpt's Python interface whose names are not just the preset's in capitals.
const CONSTANTS: [(&str, &str); 13] = [
    ("INT8_DEFAULT_CFG", "int8"),
    ("INT8_SMOOTHQUANT_CFG", "int8_smoothquant"),
    ("INT8_WEIGHT_ONLY_CFG", "int8_weight_only"),
    ("FP8_DEFAULT_CFG", "fp8"),
    ("FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG", "fp8_2d_blockwise_weight_only"),
    ("FP8_PER_CHANNEL_PER_TOKEN_CFG", "fp8_per_channel_per_token"),
    ("NVFP4_DEFAULT_CFG", "nvfp4"),
    ("NVFP4_SVDQUANT_DEFAULT_CFG", "nvfp4_svdquant"),
    ("MXFP4_DEFAULT_CFG", "mxfp4"),
    ("MXFP6_DEFAULT_CFG", "mxfp6"),
    ("MXFP8_DEFAULT_CFG", "mxfp8"),
    ("MXINT8_DEFAULT_CFG", "mxint8"),
    ("W4A8_AWQ_BETA_CFG", "w4a8_awq_beta"),
];

/// Folders that other releases have elsewhere; the longest match counts.
const FOLDERS: [(&str, &str); 10] = [
    ("models/Step3.5-Flash", "models/stepfun-ai/Step-3.5-Flash"),
    ("huggingface/step3p5/Step3.5-Flash", "models/stepfun-ai/Step-3.5-Flash"),
    ("models/nvidia/Mistral-Medium-3.5-128B-NVFP4", "models/mistralai/Mistral-Medium-3.5-128B"),
    ("models/nvidia/Nemotron-3-Nano-4B-BF16", "models/nvidia/NVIDIA-Nemotron-3-Nano-4B-BF16"),
    ("models/nvidia/Nemotron-3-Nano-4B", "models/nvidia/NVIDIA-Nemotron-3-Nano-4B-BF16"),
    ("models/nvidia/Nemotron-3-Super-120B-A12B", "models/nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16"),
    ("models/nvidia/Nemotron-3-Super-120B-A12B-BF16", "models/nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16"),
    ("models/nvidia/Nemotron-3-Ultra-550B-A55B-BF16", "models/nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16"),
    (
        "models/nvidia/Nemotron-3.5-Lightning-30B-A3B-BF16",
        "models/nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-BF16",
    ),
    ("models/nvidia/Nemotron-3-Ultra-550B-A55B", "models/nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16"),
];

/// Finds the file that an old or short name means, in the library only.
pub(super) fn find_renamed(library: &Library, asked: &str) -> Option<Location> {
    let bare = asked.strip_suffix(".yaml").or_else(|| asked.strip_suffix(".yml")).unwrap_or(asked);
    other_names(bare).into_iter().find_map(|name| {
        // Other releases spell the last part with either separator.
        let respelt =
            name.rsplit_once('/').map(|(folder, base)| format!("{folder}/{}", base.replace('_', "-")));
        [Some(name), respelt].into_iter().flatten().find_map(|name| library.find_in_library(&name))
    })
}

/// All names that an old or short name may stand for, likeliest first.
fn other_names(bare: &str) -> Vec<String> {
    let mut names = Vec::new();
    if !bare.contains('/') {
        names.extend(preset(bare));
        names.push(format!("{OWN}/{bare}"));
    }
    let mut paths = vec![bare.to_owned()];
    if let Some(rest) = bare.strip_prefix("huggingface/models/") {
        paths.push(format!("models/{rest}"));
    }
    for path in paths.clone() {
        paths.extend(moved(&path));
    }
    for path in paths.clone() {
        paths.extend(kv_spelling(&path));
        paths.extend(format_of_presets(&path));
    }
    if let Some(unit) = bare.strip_prefix("configs/ptq/").filter(|unit| !unit.contains('/')) {
        paths.push(format!("configs/ptq/units/{unit}"));
    }
    names.extend(paths);
    names
}

/// A bare format name, today's, an older one or Python's constant.
fn preset(name: &str) -> Option<String> {
    let table = FORMATS.iter().chain(&CONSTANTS).find(|(old, _)| *old == name);
    let lower = name.strip_suffix("_CFG").map(str::to_lowercase);
    let today = table.map(|(_, today)| (*today).to_owned()).or(lower).unwrap_or_else(|| name.to_owned());
    Some(format!("{MODEL_PRESETS}/{today}"))
}

fn format_of_presets(path: &str) -> Option<String> {
    preset(path.strip_prefix(MODEL_PRESETS)?.strip_prefix('/')?)
}

/// `X-fp8_kv` of older releases is `X-kv_fp8` today.
fn kv_spelling(path: &str) -> Option<String> {
    let (rest, kv) = path.strip_suffix("_kv")?.rsplit_once('-')?;
    Some(format!("{rest}-kv_{kv}"))
}

/// The same path in the folder where 0.47 has it; the `ptq` folder may be left out.
fn moved(path: &str) -> Vec<String> {
    let in_folder = |old: &&(&str, &str)| path.strip_prefix(old.0).is_some_and(|rest| rest.starts_with('/'));
    let Some((old, today)) = FOLDERS.iter().filter(in_folder).max_by_key(|(old, _)| old.len()) else {
        return Vec::new();
    };
    let rest = &path[old.len() + 1..];
    vec![format!("{today}/{rest}"), format!("{today}/ptq/{rest}")]
}
