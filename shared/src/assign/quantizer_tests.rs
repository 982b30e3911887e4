//! Which quantizers a model has and which of them recipes switch on, against ModelOpt 0.47.

use serde_json::Value;

use super::quantizers::Quantizers;
use crate::model::{Model, fixture};
use crate::recipe::{Library, load_recipe};

/// Names that ModelOpt gave the quantizers of two models, and per recipe a digit for each that it switched on.
const GOLDEN: &str = include_str!("../../../tests/golden/assign/quantizers.json");

#[test]
fn recipes_switch_on_the_quantizers_that_modelopt_switches_on() {
    let golden: serde_json::Map<String, Value> = serde_json::from_str(GOLDEN).unwrap();
    let mut compared = 0;
    for (name, case) in &golden {
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &case["config"]);
        let model = Model::open(folder.path()).unwrap();
        let names: Vec<&str> =
            case["quantizers"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
        for (recipe, digits) in case["enabled"].as_object().unwrap() {
            let loaded = load_recipe(&Library::embedded(), recipe, &[]).unwrap();
            let config = loaded.quantize().unwrap();
            let all = Quantizers::apply(&config.quant_cfg, &model).unwrap().all(&model);
            assert_eq!(all.keys().collect::<Vec<_>>(), names, "{name}");
            let own: String = all.values().map(|&on| if on { '1' } else { '0' }).collect();
            assert_eq!(own, digits.as_str().unwrap(), "{recipe} on {name}");
            compared += 1;
        }
    }
    assert_eq!(compared, 13);
}

#[test]
fn patterns_count_quantizers_and_not_tensors() {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &fixture::qwen3_moe());
    let model = Model::open(folder.path()).unwrap();
    let loaded =
        load_recipe(&Library::embedded(), "configs/ptq/presets/model/nvfp4_experts_only", &[]).unwrap();
    let quantizers = Quantizers::apply(&loaded.quantize().unwrap().quant_cfg, &model).unwrap();
    let matched = |pattern: &str| {
        quantizers
            .reach
            .iter()
            .filter(|reach| reach.enables && reach.pattern == pattern)
            .map(|r| r.matched)
            .sum::<usize>()
    };
    // Two layers of three experts with two fused tensors each; inputs are shared by the experts.
    assert_eq!(matched("*.experts.*weight_quantizer"), 12);
    assert_eq!(matched("*.experts.*input_quantizer"), 4);
}
