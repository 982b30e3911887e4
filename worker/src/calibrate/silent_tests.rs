//! Experts without tokens: what stands in for them under each policy, and how a refusal reads.

use std::path::Path;
use std::sync::Arc;

use qlaunch_shared::assign::Assignment;
use qlaunch_shared::model::{Model, Part, Projection};
use qlaunch_shared::protocol::SilentExperts;
use qlaunch_shared::recipe::{Library, load_recipe};

use super::StandIn;
use crate::calibrate::{Gram, InputStatistics, Statistics};

const LAYER: usize = 1;
const SILENT: u32 = 4;

fn model() -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-qwen3-moe");
    Model::open(&folder).unwrap()
}

fn assignment(model: &Model, recipe: &str) -> Assignment {
    let recipe = load_recipe(&Library::embedded(), recipe, &[]).unwrap();
    Assignment::resolve(recipe.quantize().unwrap(), model).unwrap().0
}

/// Statistics of a layer whose experts saw a token each, with a matrix of their own number, `SILENT` apart.
fn statistics(model: &Model, fired: bool) -> Statistics {
    let mut statistics = Statistics::default();
    let experts = model.config.experts.as_ref().unwrap().count as u32;
    let tokens = |expert: u32| u64::from(fired && expert != SILENT);
    statistics.see_routed(LAYER, &(0..experts).map(tokens).collect::<Vec<_>>());
    for (module, part) in model.modules.iter().enumerate().filter(|(_, part)| part.layer == Some(LAYER)) {
        let Some(expert) = part.expert().filter(|&expert| tokens(expert) > 0 && part.is_linear()) else {
            continue;
        };
        let gram = Gram { columns: 1, sums: vec![f32::from(expert as u8)], tokens: 1 };
        let seen =
            InputStatistics { tokens: 1, rounded_gram: Some(Arc::new(gram)), ..InputStatistics::default() };
        statistics.inputs.insert(module, seen);
    }
    statistics
}

fn module(model: &Model, expert: u32, projection: Projection) -> usize {
    let is_it = |part: &qlaunch_shared::model::Module| {
        (part.layer, part.part, part.projection) == (Some(LAYER), Part::Expert(expert), Some(projection))
    };
    model.modules.iter().position(is_it).unwrap()
}

#[test]
fn peers_lend_what_gate_and_up_read_and_nothing_of_the_inside() {
    let model = model();
    let assignment = assignment(&model, "general/ptq/nvfp4_default-kv_none-gptq");
    let mut statistics = statistics(&model, true);
    statistics.settle_silent((&assignment, &model), LAYER, SilentExperts::Peers).unwrap();
    assert_eq!(statistics.silent.get(&(LAYER, SILENT)), Some(&StandIn::Peers));
    assert_eq!(statistics.silent.len(), 1);
    let experts = model.config.experts.as_ref().unwrap().count as u32;
    let sum: u32 = (0..experts).filter(|expert| *expert != SILENT).sum();
    for projection in [Projection::Gate, Projection::Up] {
        let own = &statistics.inputs[&module(&model, SILENT, projection)];
        let gram = own.rounded_gram.as_ref().unwrap();
        assert_eq!((gram.sums[0], gram.tokens), (sum as f32, u64::from(experts) - 1));
        assert_eq!(own.tokens, 0, "it saw none all the same");
    }
    assert!(!statistics.inputs.contains_key(&module(&model, SILENT, Projection::Down)));
    let other = &statistics.inputs[&module(&model, 2, Projection::Gate)];
    assert_eq!(other.rounded_gram.as_ref().unwrap().sums, [2.0], "the others keep what is theirs");
}

#[test]
fn weights_lend_nothing_and_so_do_peers_where_none_fired() {
    let model = model();
    let assignment = assignment(&model, "general/ptq/nvfp4_default-kv_none-gptq");
    for (fired, policy) in [(true, SilentExperts::Weights), (false, SilentExperts::Peers)] {
        let mut statistics = statistics(&model, fired);
        let before = statistics.inputs.clone();
        statistics.settle_silent((&assignment, &model), LAYER, policy).unwrap();
        assert_eq!(statistics.silent[&(LAYER, SILENT)], StandIn::Weights);
        let has_gram = |inputs: &std::collections::BTreeMap<usize, InputStatistics>| {
            inputs
                .iter()
                .filter(|(_, seen)| seen.rounded_gram.is_some())
                .map(|(at, _)| *at)
                .collect::<Vec<_>>()
        };
        assert_eq!(has_gram(&statistics.inputs), has_gram(&before));
    }
}

#[test]
fn a_refusal_names_layer_and_experts_and_what_to_do() {
    let model = model();
    let assignment = assignment(&model, "general/ptq/fp8_default-kv_fp8");
    let mut statistics = statistics(&model, true);
    let error = statistics.settle_silent((&assignment, &model), LAYER, SilentExperts::Fail).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("1 of the experts of layer 1") && text.contains("`model.layers.1.mlp.experts.4`"),
        "{text}"
    );
    assert!(error.hint.unwrap().contains("moe_calib_experts_ratio"));
}

#[test]
fn experts_that_were_shown_tokens_or_need_none_are_no_reason_to_refuse() {
    let model = model();
    let fp8 = assignment(&model, "general/ptq/fp8_default-kv_fp8");
    let mut shown = statistics(&model, true);
    let own = InputStatistics { tokens: 7, ..InputStatistics::default() };
    shown.inputs.insert(module(&model, SILENT, Projection::Gate), own);
    shown.settle_silent((&fp8, &model), LAYER, SilentExperts::Fail).unwrap();
    assert_eq!(shown.silent[&(LAYER, SILENT)], StandIn::Shown(7));
    let weights_alone = assignment(&model, "general/ptq/nvfp4_weight_only-kv_fp8_cast");
    let mut unneeded = statistics(&model, false);
    unneeded.settle_silent((&weights_alone, &model), LAYER, SilentExperts::Fail).unwrap();
    assert!(unneeded.silent.values().all(|stand_in| *stand_in == StandIn::NotNeeded));
    assert!(!unneeded.silent.is_empty());
}
