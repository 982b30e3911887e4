//! Recipes of the library against a small model: who gets what, how large it gets, and what is refused.

use serde_json::json;

use super::{Amax, Assignment, Plan, plan, resolve};
use crate::Error;
use crate::model::{FusedGroup, Model, fixture};
use crate::numerics::Format;
use crate::recipe::{Library, QuantizeConfig, Recipe, load_recipe};

fn model() -> (tempfile::TempDir, Model) {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &fixture::config());
    let model = Model::open(folder.path()).unwrap();
    (folder, model)
}

fn recipe(name: &str) -> Recipe {
    load_recipe(&Library::embedded(), name, &[]).unwrap()
}

fn own(entries: serde_json::Value) -> Result<Assignment, Error> {
    let (_folder, model) = model();
    let config: QuantizeConfig =
        serde_json::from_value(json!({ "quant_cfg": entries, "algorithm": "max" })).unwrap();
    Assignment::resolve(&config, &model).map(|(assignment, _)| assignment)
}

fn fp8() -> serde_json::Value {
    json!({ "num_bits": [4, 3] })
}

#[test]
fn fp8_default_covers_every_linear_but_the_head() {
    let (_folder, model) = model();
    let resolved = resolve(&model, Some(&recipe("general/ptq/fp8_default-kv_fp8")), u64::MAX).unwrap();
    let assignment = resolved.assignment.unwrap();
    assert_eq!(assignment.linears.len(), 14);
    assert!(assignment.linears.iter().all(|linear| linear.weight == Format::Fp8 && linear.shared.is_none()));
    assert_eq!(assignment.caches.len(), 2);
    assert_eq!(resolved.plan.coverage.unquantized, ["lm_head"]);
    assert_eq!(resolved.plan.coverage.formats, [("FP8".to_owned(), 14)]);
}

#[test]
fn nvfp4_members_of_a_fused_group_share_their_scales() {
    let (_folder, model) = model();
    let config = recipe("general/ptq/nvfp4_default-kv_fp8");
    let (assignment, _) = Assignment::resolve(config.quantize().unwrap(), &model).unwrap();
    let shared = |name: &str| assignment.linears.iter().find(|l| l.name.ends_with(name)).unwrap().shared;
    assert_eq!(shared("0.self_attn.k_proj"), Some((0, FusedGroup::Qkv)));
    assert_eq!(shared("0.mlp.up_proj"), Some((0, FusedGroup::GateUp)));
    assert_eq!(shared("0.mlp.down_proj"), None);
}

#[test]
fn weight_only_needs_no_calibration() {
    let (_folder, model) = model();
    let config = recipe("general/ptq/nvfp4_weight_only-kv_fp16");
    let (assignment, _) = Assignment::resolve(config.quantize().unwrap(), &model).unwrap();
    assert!(!assignment.needs_calibration());
    assert!(assignment.caches.is_empty());
}

#[test]
fn planned_figures_follow_their_definitions() {
    let (_folder, model) = model();
    let linears: u64 = 2 * (32 * 32 * 2 + 16 * 32 * 2 + 3 * 32 * 64);
    let head = 48 * 32u64;
    let bf16: Plan = plan(&model, None, u64::MAX).unwrap();
    assert_eq!(bf16.totals.effective_bits, 16.0);
    assert_eq!(bf16.totals.compute, 1.0);
    assert_eq!(bf16.totals.bytes, bf16.totals.source_bytes);
    assert_eq!(bf16.totals.active_bytes_per_token, 2 * (linears + head) + 2 * 32 + 2 * 32 * 5);
    let fp4 = plan(&model, Some(&recipe("general/ptq/nvfp4_default-kv_fp8")), u64::MAX).unwrap();
    let bits = (4.5 * linears as f64 + 14.0 * 32.0 + 16.0 * head as f64) / (linears + head) as f64;
    assert!((fp4.totals.effective_bits - bits).abs() < 1e-12);
    let compute = (16.0 * linears as f64 + 256.0 * head as f64) / (256.0 * (linears + head) as f64);
    assert!((fp4.totals.compute - compute).abs() < 1e-12);
    assert!(fp4.totals.ratio < 0.6);
}

#[test]
fn a_recipe_that_enables_nothing_is_refused() {
    let error = own(json!([{ "quantizer_name": "*", "enable": false }])).unwrap_err();
    assert!(error.message.contains("enables no weight quantizer"), "{error}");
}

#[test]
fn an_own_pattern_that_matches_nothing_is_refused_by_name() {
    let error = own(json!([
        { "quantizer_name": "*", "enable": false },
        { "quantizer_name": "*.experts.*weight_quantizer", "cfg": fp8() },
    ]))
    .unwrap_err();
    assert!(error.message.contains("`*.experts.*weight_quantizer` matches no quantizer"), "{error}");
}

#[test]
fn mixed_numerics_in_a_fused_group_are_refused_with_the_group_named() {
    let error = own(json!([
        { "quantizer_name": "*", "enable": false },
        { "quantizer_name": "*q_proj*weight_quantizer", "cfg": fp8() },
        { "quantizer_name": "*q_proj*input_quantizer", "cfg": fp8() },
    ]))
    .unwrap_err();
    assert!(error.message.contains("q/k/v group of `model.layers.0.self_attn`"), "{error}");
    assert!(error.message.contains("`q_proj` FP8, `k_proj` as it is, `v_proj` as it is"), "{error}");
    assert!(error.hint.as_deref().unwrap_or_default().contains("--fix-groups"), "{error}");
}

#[test]
fn numerics_without_a_codec_are_refused_by_quantizer() {
    let error = own(json!([
        { "quantizer_name": "*", "enable": false },
        { "quantizer_name": "*_proj.weight_quantizer", "cfg": { "num_bits": 3 } },
    ]))
    .unwrap_err();
    assert!(error.message.contains("no codec for"), "{error}");
    assert!(error.place.key.as_deref().unwrap_or_default().ends_with("_quantizer"), "{error}");
}

#[test]
fn a_calibrator_that_no_algorithm_reads_is_refused_and_not_taken_for_max() {
    let with = |calibrator: &str| {
        own(json!([
            {"quantizer_name": "*", "enable": false},
            {"quantizer_name": "*mlp*weight_quantizer", "cfg": {"num_bits": [4, 3]}},
            {"quantizer_name": "*mlp*input_quantizer", "cfg": {"num_bits": [4, 3], "calibrator": calibrator}},
        ]))
    };
    assert!(with("max").is_ok());
    let error = with("histogram").unwrap_err();
    assert!(error.message.contains("a `calibrator` other than `max`"), "{error}");
    assert!(error.place.key.is_some_and(|key| key.ends_with("input_quantizer")));
}

#[test]
fn later_entries_win_and_a_bare_switch_keeps_numerics() {
    let assignment = own(json!([
        { "quantizer_name": "*", "enable": false },
        { "quantizer_name": "*mlp*weight_quantizer", "cfg": fp8() },
        { "quantizer_name": "*mlp*input_quantizer", "cfg": fp8() },
        { "quantizer_name": "*.1.mlp*", "enable": false },
        { "quantizer_name": "*.1.mlp.down_proj.[wi]*_quantizer", "enable": true },
    ]))
    .unwrap();
    let names: Vec<&str> = assignment.linears.iter().map(|linear| linear.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "model.layers.0.mlp.gate_proj",
            "model.layers.0.mlp.up_proj",
            "model.layers.0.mlp.down_proj",
            "model.layers.1.mlp.down_proj"
        ]
    );
}

#[test]
fn a_cast_cache_has_no_stored_scale_and_needs_no_calibration() {
    let (_folder, model) = model();
    let resolved =
        resolve(&model, Some(&recipe("general/ptq/nvfp4_weight_only-kv_fp8_cast")), u64::MAX).unwrap();
    let assignment = resolved.assignment.unwrap();
    assert_eq!(assignment.caches[0].key.amax, Amax::Unit);
    assert!(!assignment.needs_calibration());
    assert!(
        resolved.tensors.iter().flat_map(|own| &own.tensors).all(|tensor| !tensor.name.ends_with("k_scale"))
    );
}

#[test]
fn the_hash_names_the_assignment_and_nothing_else() {
    let (_folder, model) = model();
    let hash = |name: &str| plan(&model, Some(&recipe(name)), u64::MAX).unwrap().assignment;
    assert_eq!(hash("general/ptq/fp8_default-kv_fp8"), hash("general/ptq/fp8_default-kv_fp8"));
    assert_ne!(hash("general/ptq/fp8_default-kv_fp8"), hash("general/ptq/fp8_default-kv_fp8_cast"));
}
