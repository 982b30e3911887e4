//! Mixtures of experts: what their configs mean, what their modules are called, and sources that keep them fused.

use serde_json::{Value, json};

use super::{
    Experts, FusedGroup, Model, ModelConfig, ModuleRole, Part, QuantizerHome, Weighting, fixture, modules_of,
};
use crate::Error;
use crate::checkpoint::{DType, PlannedTensor};

fn parse(mut config: Value, entries: &[(&str, Value)]) -> Result<ModelConfig, Error> {
    let map = config.as_object_mut().unwrap();
    map.extend(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    ModelConfig::parse("config.json".as_ref(), map)
}

fn experts(config: Value, entries: &[(&str, Value)]) -> Experts {
    parse(config, entries).unwrap().experts.unwrap()
}

fn names(config: Value) -> Vec<String> {
    modules_of(&parse(config, &[]).unwrap()).into_iter().map(|module| module.name).collect()
}

#[test]
fn both_spellings_of_the_number_of_experts_mean_the_same() {
    let older = experts(fixture::qwen3_moe(), &[]);
    let current =
        experts(fixture::qwen3_moe(), &[("num_experts", Value::Null), ("num_local_experts", json!(3))]);
    assert_eq!(older, current);
    assert_eq!(older.count, 3);
    assert_eq!(older.weighting, Weighting { normalised: true, rounded: true });
    let plain = experts(fixture::qwen3_moe(), &[("norm_topk_prob", Value::Null)]);
    assert!(!plain.weighting.normalised, "transformers does not divide unless the config says so");
    assert_eq!(experts(fixture::mixtral(), &[]).weighting, Weighting { normalised: true, rounded: false });
}

#[test]
fn some_layers_keep_their_mlp() {
    let sparse = |entries: &[(&str, Value)]| {
        let layers = [("num_hidden_layers", json!(5))];
        experts(fixture::qwen3_moe(), &[&layers, entries].concat()).layers
    };
    assert_eq!(sparse(&[]), [true; 5]);
    assert_eq!(sparse(&[("decoder_sparse_step", json!(2))]), [false, true, false, true, false]);
    let both = [("decoder_sparse_step", json!(2)), ("mlp_only_layers", json!([1, 2, 99]))];
    assert_eq!(sparse(&both), [false, false, false, true, false]);
    let error = parse(fixture::qwen3_moe(), &[("mlp_only_layers", json!("none"))]).unwrap_err();
    assert!(error.message.contains("`\"none\"`"), "{error}");
}

#[test]
fn more_experts_for_a_token_than_there_are_is_refused() {
    let error = parse(fixture::mixtral(), &[("num_experts_per_tok", json!(4))]).unwrap_err();
    assert!(error.message.contains("4 of 3 experts"), "{error}");
    assert_eq!(error.place.key.as_deref(), Some("num_experts_per_tok"));
}

#[test]
fn calibration_reaches_a_share_of_the_experts_rounded_as_python_does() {
    let of = |count, per_token| Experts { count, per_token, ..experts(fixture::mixtral(), &[]) };
    assert_eq!(of(8, 2).widened(0.5), 4);
    assert_eq!(of(8, 2).widened(0.3125), 2, "2.5 goes to the even side");
    assert_eq!(of(8, 2).widened(0.4375), 4, "3.5 goes to the even side");
    assert_eq!(of(8, 2).widened(0.01), 2, "never fewer than the model uses");
    assert_eq!(of(8, 2).widened(1.0), 8);
}

#[test]
fn modules_of_qwen3_moe_stand_in_torch_order() {
    let names = names(fixture::qwen3_moe());
    let first = names.iter().position(|name| name.ends_with("k_norm")).unwrap() + 1;
    let layer = "model.layers.0";
    let mut expected: Vec<String> = (0..3)
        .flat_map(|e| ["gate_proj", "up_proj", "down_proj"].map(|p| format!("{layer}.mlp.experts.{e}.{p}")))
        .collect();
    expected.push(format!("{layer}.mlp.gate"));
    expected.push(format!("{layer}.input_layernorm"));
    assert_eq!(names[first..first + expected.len()], expected);
}

#[test]
fn modules_of_mixtral_have_the_names_of_its_checkpoints() {
    let names = names(fixture::mixtral());
    let first = names.iter().position(|name| name.ends_with("o_proj")).unwrap() + 1;
    let block = "model.layers.0.block_sparse_moe";
    let expected = ["gate", "experts.0.w1", "experts.0.w3", "experts.0.w2", "experts.1.w1"];
    assert_eq!(names[first..first + 5], expected.map(|name| format!("{block}.{name}")));
}

#[test]
fn quantizers_of_experts_hang_where_transformers_fuses_them() {
    for config in [fixture::qwen3_moe(), fixture::mixtral()] {
        let modules = modules_of(&parse(config, &[]).unwrap());
        let of = |layer, part| modules.iter().filter(move |m| m.layer == Some(layer) && m.part == part);
        let homes: Vec<_> = of(1, Part::Expert(2)).map(|module| module.quantizer_home()).collect();
        let home =
            |tensor| QuantizerHome::Experts { container: "model.layers.1.mlp.experts", tensor, expert: 2 };
        assert_eq!(homes, [home("gate_up_proj"), home("gate_up_proj"), home("down_proj")]);
        let router: Vec<_> = of(1, Part::Router).map(|module| module.quantizer_home()).collect();
        assert_eq!(router, [QuantizerHome::Nowhere]);
        let mut keys: Vec<_> = modules
            .iter()
            .filter_map(|module| match module.role {
                ModuleRole::Linear { group: Some(group @ FusedGroup::Expert(_)), .. } => {
                    Some((module.layer, group))
                }
                _ => None,
            })
            .collect();
        keys.dedup();
        assert_eq!(keys.len(), 2 * 3, "gate and up of one expert are a group of their own");
    }
}

/// Writes a model whose experts are fused, with the names that `rename` gives.
fn write_fused(folder: &std::path::Path, config: &Value, inner: usize, rename: impl Fn(&str) -> String) {
    let parsed = parse(config.clone(), &[]).unwrap();
    let mut tensors = Vec::new();
    for module in modules_of(&parsed).into_iter().filter(|module| module.expert().is_none()) {
        if let Some(shape) = module.role.weight_shape() {
            tensors.push(PlannedTensor {
                name: rename(&format!("{}.weight", module.name)),
                dtype: DType::BF16,
                shape,
            });
        }
    }
    for layer in 0..2 {
        for (name, shape) in [("gate_up_proj", vec![3, 2 * inner, 32]), ("down_proj", vec![3, 32, inner])] {
            let name = format!("model.layers.{layer}.mlp.experts.{name}");
            tensors.push(PlannedTensor { name, dtype: DType::BF16, shape });
        }
    }
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fixture::write_tensors(folder, &tensors);
}

#[test]
fn a_fused_source_is_told_expert_by_expert() {
    let as_in_memory = |name: &str| name.replace("block_sparse_moe", "mlp");
    for (config, inner) in [(fixture::qwen3_moe(), 24), (fixture::mixtral(), 64)] {
        let [fused, alone] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        write_fused(fused.path(), &config, inner, as_in_memory);
        fixture::write(alone.path(), &config);
        let (model, other) = (Model::open(fused.path()).unwrap(), Model::open(alone.path()).unwrap());
        let list = |model: &Model| {
            let mut list: Vec<_> = model.files.tensors().map(|t| (t.name.clone(), t.shape.clone())).collect();
            list.sort();
            list
        };
        assert_eq!(list(&model), list(&other));
        assert!(model.strangers.is_empty(), "{:?}", model.strangers);
        assert_eq!(model.parameters(), other.parameters());
        // Gate and up of an expert follow each other, and then the next expert's.
        let header = crate::checkpoint::read_header(&fused.path().join("model.safetensors")).unwrap();
        let whole = header.tensors.iter().find(|t| t.name.ends_with("1.mlp.experts.gate_up_proj")).unwrap();
        let size = 2 * 32 * inner as u64;
        let of = |name| {
            modules_of(&model.config)
                .into_iter()
                .filter(move |m| m.layer == Some(1) && m.expert() == Some(2))
                .nth(name)
        };
        for (nth, place) in [(0, 4), (1, 5)] {
            let weight = model.weight(&of(nth).unwrap()).unwrap();
            assert_eq!((weight.offset, weight.length), (whole.offset + place * size, size));
        }
        let whole = header.tensors.iter().find(|t| t.name.ends_with("1.mlp.experts.down_proj")).unwrap();
        assert_eq!(model.weight(&of(2).unwrap()).unwrap().offset, whole.offset + 2 * size);
    }
}

#[test]
fn a_fused_tensor_of_another_shape_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_fused(folder.path(), &fixture::qwen3_moe(), 20, str::to_owned);
    let error = Model::open(folder.path()).unwrap_err();
    assert!(error.message.contains("[3, 32, 20]") && error.message.contains("[3, 32, 24]"), "{error}");
    assert!(error.place.key.as_deref().unwrap_or_default().ends_with("0.mlp.experts.down_proj"), "{error}");
}
