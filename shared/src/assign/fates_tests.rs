//! What entries do to quantizers, against ModelOpt's own walk over a model's modules.

use serde_json::{Value, json};

use super::*;
use crate::recipe::QuantizeConfig;

fn config(entries: Value) -> QuantizeConfig {
    serde_json::from_value(json!({ "quant_cfg": entries })).unwrap()
}

/// Enabled or not, and the bits of each quantizer in order of application.
fn fate(entries: Value, seat: Seat, name: &str) -> (bool, Vec<String>) {
    let config = config(entries);
    let mut fates = Fates::new(&config.quant_cfg);
    let index = fates.of(seat, name);
    let fate = fates.get(index);
    (fate.enabled, fate.attributes.iter().map(|one| one.num_bits().to_string()).collect())
}

fn weight(entries: Value) -> (bool, Vec<String>) {
    fate(entries, Seat::LinearWeight, "model.layers.0.mlp.up_proj.weight_quantizer")
}

fn w4a8() -> Value {
    json!([{ "num_bits": 4, "block_sizes": { "-1": 128, "type": "static" } }, { "num_bits": [4, 3] }])
}

#[test]
fn a_list_makes_a_sequence_and_a_mapping_makes_one_of_it_again() {
    let list = json!({ "quantizer_name": "*weight_quantizer", "cfg": w4a8() });
    assert_eq!(weight(json!([list])), (true, vec!["INT4".to_owned(), "E4M3".to_owned()]));
    let one = json!({ "quantizer_name": "*weight_quantizer", "cfg": { "num_bits": 8 } });
    assert_eq!(weight(json!([list, one])), (true, vec!["INT8".to_owned()]));
}

#[test]
fn a_second_list_puts_sequences_into_the_sequence() {
    let list = json!({ "quantizer_name": "*weight_quantizer", "cfg": w4a8() });
    let (_, bits) = weight(json!([list, list]));
    assert_eq!(bits, ["INT4", "E4M3", "INT4", "E4M3"]);
    // Without the index taken out of the children's names, the pattern does not reach them.
    let exact = json!({ "quantizer_name": "model.layers.0.mlp.up_proj.weight_quantizer?", "cfg": w4a8() });
    assert_eq!(weight(json!([list, exact])).1, ["INT4", "E4M3"]);
}

#[test]
fn a_switch_reaches_all_of_a_sequence_and_an_index_one_of_it() {
    let list = json!({ "quantizer_name": "*weight_quantizer", "cfg": w4a8() });
    let off = json!({ "quantizer_name": "*up_proj.weight_quantizer", "enable": false });
    assert!(!weight(json!([list, off])).0);
    let second = json!({ "quantizer_name": "*weight_quantizer.1", "enable": false });
    assert_eq!(weight(json!([list, second])), (true, vec!["INT4".to_owned()]));
}

#[test]
fn children_of_a_sequence_are_of_no_class() {
    let list = json!({ "quantizer_name": "*weight_quantizer", "cfg": w4a8() });
    let linear = json!({ "quantizer_name": "*weight_quantizer", "parent_class": "nn.Linear", "cfg": w4a8() });
    assert_eq!(weight(json!([list, linear])).1, ["INT4", "E4M3"]);
    let table = json!({ "quantizer_name": "*", "parent_class": "nn.Embedding", "enable": false });
    assert!(weight(json!([list, table])).0);
}

#[test]
fn the_quantizers_of_fused_experts_are_found_by_singular_patterns() {
    let name = "model.layers.0.mlp.experts.gate_up_proj_weight_quantizers.7";
    let pattern = |pattern: &str| {
        let entries = json!([{ "quantizer_name": pattern, "enable": false }]);
        !fate(entries, Seat::ExpertWeight, name).0
    };
    assert!(pattern("*weight_quantizer"));
    assert!(pattern("*.experts.*weight_quantizer"));
    assert!(pattern("*weight_quantizers.7"));
    assert!(pattern("*experts*"));
    assert!(!pattern("*weight_quantizers"));
    assert!(!pattern("*gate_proj*"));
}

#[test]
fn what_no_entry_reaches_starts_as_modelopt_makes_it() {
    let none = json!([{ "quantizer_name": "nothing", "enable": false }]);
    assert_eq!(weight(none.clone()), (true, vec!["INT8".to_owned()]));
    assert!(!fate(none, Seat::LinearOutput, "a.output_quantizer").0);
    let all = json!([{ "quantizer_name": "*", "enable": true }]);
    assert!(!fate(all.clone(), Seat::TableInput, "model.embed_tokens.input_quantizer").0);
    assert!(fate(all, Seat::TableOutput, "model.embed_tokens.output_quantizer").0);
}

#[test]
fn a_bare_switch_takes_the_rotation_off_and_a_configuration_keeps_it() {
    let rotated = |entries: Value| {
        let config = config(entries);
        let mut fates = Fates::new(&config.quant_cfg);
        let index = fates.of(Seat::Query, "model.layers.0.self_attn.q_bmm_quantizer");
        fates.get(index).attributes[0].is_rotated()
    };
    let kept = json!({ "quantizer_name": "*q_bmm_quantizer", "cfg": { "rotate": true }, "enable": false });
    assert!(rotated(json!([kept])));
    let off = json!({ "quantizer_name": "*", "enable": false });
    assert!(!rotated(json!([kept, off])));
}

#[test]
fn every_quantizer_counts_once_for_each_entry_that_reaches_it() {
    let config = config(json!([
        { "quantizer_name": "*", "enable": false },
        { "quantizer_name": "*weight_quantizer", "cfg": w4a8() },
        { "quantizer_name": "*.1.*", "enable": true },
    ]));
    let mut fates = Fates::new(&config.quant_cfg);
    for layer in 0..3 {
        fates.of(Seat::LinearWeight, &format!("layers.{layer}.up.weight_quantizer"));
        fates.of(Seat::LinearInput, &format!("layers.{layer}.up.input_quantizer"));
    }
    assert_eq!(fates.counts(), [6, 3, 2]);
}
