//! The embedded library resolves to what ModelOpt 0.47 resolves its own to, and travels without loss.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;

/// SHA-256 of each entry's canonical JSON (sorted keys, no blanks, floats as `"f64:<bits>"`, because every language
/// prints them its own way) without `metadata.description`, made from what ModelOpt 0.47's own loader prints for its
/// own files.
fn golden() -> BTreeMap<String, String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/recipes/digests.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn digest(mut content: Value) -> String {
    if let Some(metadata) = content.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.remove("description");
    }
    floats_as_bits(&mut content);
    let text = serde_json::to_string(&content).unwrap();
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn floats_as_bits(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            *value = Value::from(format!("f64:{:016x}", number.as_f64().unwrap().to_bits()));
        }
        Value::Array(list) => list.iter_mut().for_each(floats_as_bits),
        Value::Object(map) => map.values_mut().for_each(floats_as_bits),
        _ => {}
    }
}

#[test]
fn every_file_resolves_as_modelopt_resolves_its_own() {
    let library = Library::embedded();
    let wrong: Vec<String> = golden()
        .into_iter()
        .filter_map(|(name, expected)| match define(&library, &name) {
            Ok(definition) if digest(definition.content.clone()) == expected => None,
            Ok(definition) => Some(format!("{name}: {}", definition.content)),
            Err(error) => Some(format!("{name}: {error}")),
        })
        .collect();
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn outside_our_own_folder_the_library_holds_the_same_names_and_no_others() {
    let all = Library::embedded().names();
    let names: Vec<String> = all.into_iter().filter(|name| !name.starts_with("qlaunch/")).collect();
    let expected: Vec<String> = golden().into_keys().collect();
    assert_eq!(names, expected);
    assert_eq!(names.len(), 150);
}

#[test]
fn a_digest_notices_a_changed_value() {
    let library = Library::embedded();
    let mut content = define(&library, "configs/numerics/nvfp4").unwrap().content;
    let before = digest(content.clone());
    content["block_sizes"]["-1"] = Value::from(32);
    assert_ne!(digest(content), before);
}

#[test]
fn every_recipe_describes_itself() {
    for listing in list(&Library::embedded()) {
        let kind = listing.definition.as_ref().unwrap().kind;
        let is_recipe = matches!(kind, Kind::Recipe(_));
        assert_eq!(!listing.description().is_empty(), is_recipe, "{}", listing.name);
    }
}

#[test]
fn a_recipe_survives_the_way_through_a_job_spec() {
    let library = Library::embedded();
    for listing in list(&library) {
        if matches!(listing.definition.unwrap().kind, Kind::Snippet | Kind::Configuration) {
            continue;
        }
        let recipe = load_recipe(&library, &listing.name, &[]).unwrap();
        let text = serde_json::to_string(&recipe).unwrap();
        let back: Recipe = serde_json::from_str(&text).unwrap();
        assert_eq!(back, recipe, "{}", listing.name);
        assert_eq!(back.resolved_json().unwrap(), recipe.resolved_json().unwrap(), "{}", listing.name);
    }
}

#[test]
fn names_of_other_releases_resolve() {
    let library = Library::embedded();
    for (old, today) in [
        ("general/ptq/fp8_default-fp8_kv", "general/ptq/fp8_default-kv_fp8"),
        ("general/ptq/nvfp4_default-nvfp4_cast_kv", "general/ptq/nvfp4_default-kv_nvfp4_cast"),
        ("configs/ptq/base_disable_all", "configs/ptq/units/base_disable_all"),
        ("mxfp8", "configs/ptq/presets/model/mxfp8"),
        ("nf4", "qlaunch/ptq/nf4"),
        ("int8_sq", "configs/ptq/presets/model/int8_smoothquant"),
        ("fp8_pb_wo", "configs/ptq/presets/model/fp8_2d_blockwise_weight_only"),
        ("configs/ptq/presets/model/nvfp4_awq", "configs/ptq/presets/model/nvfp4_awq_lite"),
        ("NVFP4_DEFAULT_CFG", "configs/ptq/presets/model/nvfp4"),
        ("NVFP4_AWQ_LITE_CFG", "configs/ptq/presets/model/nvfp4_awq_lite"),
        ("models/Step3.5-Flash/ptq/nvfp4-mlp-only", "models/stepfun-ai/Step-3.5-Flash/ptq/nvfp4-mlp-only"),
        ("models/Step3.5-Flash/nvfp4-mlp-only", "models/stepfun-ai/Step-3.5-Flash/ptq/nvfp4-mlp-only"),
        (
            "huggingface/step3p5/Step3.5-Flash/ptq/nvfp4-mlp-only.yaml",
            "models/stepfun-ai/Step-3.5-Flash/ptq/nvfp4-mlp-only",
        ),
        (
            "huggingface/models/nvidia/Mistral-Medium-3.5-128B-NVFP4/ptq/nvfp4-max-calib",
            "models/mistralai/Mistral-Medium-3.5-128B/ptq/nvfp4-max-calib",
        ),
        (
            "huggingface/models/mistralai/Mistral-Medium-3.5-128B/ptq/nvfp4-max-calib",
            "models/mistralai/Mistral-Medium-3.5-128B/ptq/nvfp4-max-calib",
        ),
        (
            "huggingface/models/nvidia/Nemotron-3-Super-120B-A12B-BF16/ptq/nvfp4-mse",
            "models/nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16/ptq/nvfp4-mse",
        ),
    ] {
        assert_eq!(define(&library, old).unwrap().name, today, "{old}");
    }
    let recipe = load_recipe(&library, "general/ptq/fp8_default-fp8_kv", &[]).unwrap();
    assert_eq!(
        recipe.notes,
        ["`general/ptq/fp8_default-fp8_kv` is called `general/ptq/fp8_default-kv_fp8` here"]
    );
}

#[test]
fn a_preset_takes_a_kv_cache_behind_all_other_entries() {
    let library = Library::embedded();
    let preset = load_recipe(&library, "mxfp8", &[]).unwrap();
    assert_eq!(preset.quantize().unwrap().algorithm, Value::Null);
    let with_cache = preset.clone().with_kv_cache(&library, "fp8").unwrap();
    let config = with_cache.quantize().unwrap();
    assert_eq!(config.quant_cfg.last().unwrap().quantizer_name, "*[kv]_bmm_quantizer");
    assert_eq!(config.algorithm, "max");
    assert_eq!(preset.clone().with_kv_cache(&library, "none").unwrap(), preset);
    let error = preset.with_kv_cache(&library, "fp9").unwrap_err();
    assert_eq!(error.to_string(), "there is no KV cache format `fp9`\n\nhint: did you mean `fp8`?");
}

#[test]
fn a_folder_goes_before_the_embedded_library() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("general/ptq");
    std::fs::create_dir_all(&path).unwrap();
    let text = "metadata: {recipe_type: ptq, description: mine}\n\
                quantize: {quant_cfg: [{quantizer_name: 'mine*', cfg: {num_bits: 8}}]}\n";
    std::fs::write(path.join("fp8_default-kv_fp8.yaml"), text).unwrap();
    let library = Library::embedded().with_folder(folder.path());
    let recipe = load_recipe(&library, "general/ptq/fp8_default-kv_fp8", &[]).unwrap();
    assert_eq!(recipe.metadata.description.as_deref(), Some("mine"));
    assert!(matches!(recipe.origin, Origin::Library(_)));
    assert_eq!(recipe.quantize().unwrap().quant_cfg[0].origin, EntryOrigin::Library);
}

#[test]
fn a_broken_file_of_a_folder_is_listed_with_its_error_and_hides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken.yaml"), "metadata: [\n").unwrap();
    let before = list(&Library::embedded()).len();
    let listings = list(&Library::embedded().with_folder(folder.path()));
    assert_eq!(listings.len(), before + 1);
    let broken: Vec<&Listing> = listings.iter().filter(|listing| listing.definition.is_err()).collect();
    assert_eq!(broken.len(), 1);
    assert_eq!((broken[0].name.as_str(), broken[0].description()), ("broken", ""));
    let error = broken[0].definition.as_ref().unwrap_err();
    assert!(error.place.file.as_ref().unwrap().ends_with("broken.yaml") && error.hint.is_some(), "{error}");
}
