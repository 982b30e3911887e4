//! Fused groups with mixed numerics, what people are told of a plan, and what routed experts cost.

use serde_json::{Value, json};

use super::{Aims, Assignment, Grouping, MixedGroups, ModuleFamily, Plan, Resolved, Topic, resolve_with};
use crate::Error;
use crate::model::{Model, fixture};
use crate::numerics::Format;
use crate::protocol::Level;
use crate::recipe::{Library, QuantizeConfig, Recipe, load_recipe};

fn model(config: &Value) -> Model {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), config);
    Model::open(folder.path()).unwrap()
}

fn recipe(entries: Value) -> Recipe {
    let mut recipe = load_recipe(&Library::embedded(), "general/ptq/fp8_default-kv_fp8", &[]).unwrap();
    let config: QuantizeConfig =
        serde_json::from_value(json!({ "quant_cfg": entries, "algorithm": "max" })).unwrap();
    recipe.body = crate::recipe::Body::Quantize(config);
    recipe
}

fn resolved(config: &Value, entries: Value, mixed_groups: MixedGroups) -> Result<Resolved, Error> {
    resolve_with(
        &model(config),
        Some(&recipe(entries)),
        Aims { shard_bytes: u64::MAX, grouping: Grouping::BySize, mixed_groups },
    )
}

fn fp8(pattern: &str) -> Value {
    json!({ "quantizer_name": pattern, "cfg": { "num_bits": [4, 3] } })
}

fn nvfp4(pattern: &str) -> Value {
    let blocks = json!({ "-1": 16, "type": "dynamic", "scale_bits": [4, 3] });
    json!({ "quantizer_name": pattern, "cfg": { "num_bits": [2, 1], "block_sizes": blocks } })
}

/// Weights and inputs of these modules to FP8; weights alone have no layout.
fn fp8_both(modules: &str) -> [Value; 2] {
    [fp8(&format!("{modules}weight_quantizer")), fp8(&format!("{modules}input_quantizer"))]
}

fn off(pattern: &str) -> Value {
    json!({ "quantizer_name": pattern, "enable": false })
}

fn format(assignment: &Assignment, name: &str) -> Option<Format> {
    assignment.linears.iter().find(|linear| linear.name == name).map(|linear| linear.weight)
}

#[test]
fn a_mixed_group_gets_the_numerics_with_the_most_bits() {
    let [weight, input] = fp8_both("*.1.mlp.up_proj.");
    let entries = json!([off("*"), nvfp4("*mlp*weight_quantizer"), weight, input]);
    let error = resolved(&fixture::config(), entries.clone(), MixedGroups::Refuse).unwrap_err();
    assert!(error.message.contains("gate/up group of `model.layers.1.mlp`"), "{error}");
    let fixed = resolved(&fixture::config(), entries, MixedGroups::Fix).unwrap();
    let assignment = fixed.assignment.unwrap();
    assert_eq!(format(&assignment, "model.layers.1.mlp.gate_proj"), Some(Format::Fp8));
    assert_eq!(format(&assignment, "model.layers.1.mlp.up_proj"), Some(Format::Fp8));
    assert_eq!(format(&assignment, "model.layers.1.mlp.down_proj"), Some(Format::NVFP4));
    assert_eq!(format(&assignment, "model.layers.0.mlp.gate_proj"), Some(Format::NVFP4));
    let [note] = fixed.plan.notes.as_slice() else { panic!("{:?}", fixed.plan.notes) };
    assert_eq!((note.level, note.topic), (Level::Warning, Topic::FusedGroup));
    assert_eq!(note.modules, ["model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj"]);
    assert!(note.text.contains("`gate_proj` NVFP4 weight only, `up_proj` FP8"), "{}", note.text);
}

#[test]
fn a_group_with_a_member_left_out_is_left_out() {
    let entries =
        json!([off("*"), fp8("*weight_quantizer"), fp8("*input_quantizer"), off("*embed*"), off("*k_proj*")]);
    let fixed = resolved(&fixture::config(), entries, MixedGroups::Fix).unwrap();
    let assignment = fixed.assignment.unwrap();
    for name in ["q_proj", "k_proj", "v_proj"] {
        assert_eq!(format(&assignment, &format!("model.layers.0.self_attn.{name}")), None);
    }
    assert_eq!(format(&assignment, "model.layers.0.self_attn.o_proj"), Some(Format::Fp8));
    // Both layers fare alike and make one note, which names all of their modules.
    let note = fixed.plan.notes.iter().find(|note| note.topic == Topic::FusedGroup).unwrap();
    assert!(note.text.contains("`model.layers.N.self_attn` (2 of them"), "{}", note.text);
    assert_eq!(note.modules.len(), 6);
}

#[test]
fn inputs_decide_between_members_of_equal_weights() {
    let entries = json!([off("*"), nvfp4("*mlp*weight_quantizer"), nvfp4("*mlp.up_proj.input_quantizer")]);
    let fixed = resolved(&fixture::config(), entries, MixedGroups::Fix).unwrap();
    let assignment = fixed.assignment.unwrap();
    let inputs: Vec<bool> = assignment.linears.iter().map(|linear| linear.input.is_some()).collect();
    assert_eq!(inputs, [false; 6]);
}

#[test]
fn a_recipe_without_mixed_groups_is_the_same_with_and_without_the_fix() {
    let entries = json!([off("*"), nvfp4("*mlp*weight_quantizer")]);
    let plans = [MixedGroups::Refuse, MixedGroups::Fix]
        .map(|mixed| resolved(&fixture::config(), entries.clone(), mixed).unwrap().plan);
    assert_eq!(plans[0], plans[1]);
    assert!(plans[0].notes.is_empty());
}

#[test]
fn an_experts_gate_and_up_fare_together() {
    let entries = json!([
        off("*"),
        nvfp4("*.experts.gate_up*weight_quantizer"),
        off("*experts.gate_up_proj_weight_quantizers.2"),
    ]);
    let plan = resolved(&fixture::qwen3_moe(), entries, MixedGroups::Refuse).unwrap().plan;
    let left: Vec<&String> =
        plan.coverage.unquantized.iter().filter(|name| name.contains("layers.0.mlp.experts.2")).collect();
    let parts =
        ["gate_proj", "up_proj", "down_proj"].map(|part| format!("model.layers.0.mlp.experts.2.{part}"));
    assert_eq!(left, parts.iter().collect::<Vec<_>>());
    assert!(!plan.coverage.unquantized.contains(&"model.layers.0.mlp.experts.1.gate_proj".to_owned()));
}

#[test]
fn a_quantized_head_is_said_loudly() {
    let entries = json!([off("*"), nvfp4("*mlp*weight_quantizer"), nvfp4("lm_head.weight_quantizer")]);
    let plan = resolved(&fixture::config(), entries, MixedGroups::Refuse).unwrap().plan;
    let [note] = plan.notes.as_slice() else { panic!("{:?}", plan.notes) };
    assert_eq!((note.level, note.topic), (Level::Warning, Topic::Head));
    assert_eq!(note.modules, ["lm_head"]);
    assert_eq!(serde_json::to_value(note).unwrap()["level"], "warning");
}

#[test]
fn each_part_of_the_model_is_reported_with_its_numerics() {
    let entries = json!([off("*"), fp8("*.experts.*weight_quantizer"), fp8("*.experts.*input_quantizer")]);
    let plan = resolved(&fixture::qwen3_moe(), entries, MixedGroups::Refuse).unwrap().plan;
    let of = |family: ModuleFamily| {
        let found = plan.coverage.families.iter().find(|other| other.family == family).unwrap();
        (found.modules, found.numerics.clone())
    };
    let all = |name: &str, count| (count, vec![(name.to_owned(), count)]);
    assert_eq!(of(ModuleFamily::Experts), all("FP8", 18));
    assert_eq!(of(ModuleFamily::Attention), all("bf16", 8));
    assert_eq!(of(ModuleFamily::Router), all("bf16", 2));
    assert_eq!(of(ModuleFamily::Head), all("bf16", 1));
    assert_eq!(of(ModuleFamily::Embedding), all("bf16", 1));
}

#[test]
fn a_token_reads_its_own_experts_only() {
    let plan = |config: &Value| -> Plan {
        resolve_with(
            &model(config),
            None,
            Aims { shard_bytes: u64::MAX, grouping: Grouping::BySize, mixed_groups: MixedGroups::Refuse },
        )
        .unwrap()
        .plan
    };
    let moe = plan(&fixture::qwen3_moe()).totals;
    let mut all = fixture::qwen3_moe();
    all["num_experts_per_tok"] = json!(3);
    // One of three experts less: two layers, three matrices of 24 × 32, two bytes an element.
    assert_eq!(plan(&all).totals.active_bytes_per_token - moe.active_bytes_per_token, 2 * 3 * 24 * 32 * 2);
    assert_eq!(plan(&all).totals.bytes, moe.bytes);
    assert_eq!(moe.compute, 1.0);
}
