//! Tests of comparing recipes.

use super::super::workbench::Workbench;
use super::*;

/// Differences of two lists of entries, in short.
fn differences(a: &str, b: &str) -> Vec<String> {
    let text = |lines: &str| format!("metadata: {{recipe_type: ptq}}\nquantize: {{quant_cfg: [{lines}]}}\n");
    let bench = Workbench::new().with("a.yaml", &text(a)).with("b.yaml", &text(b));
    let comparison = compare(&bench.load("a").unwrap(), &bench.load("b").unwrap()).unwrap();
    assert_eq!(comparison.settings, []);
    let short = |change: &EntryChange| {
        let index = |index: Option<usize>| index.map_or("-".to_owned(), |index| index.to_string());
        let (a, b) = (index(change.index_a), index(change.index_b));
        format!("{:?} {} {a} {b}", change.change, change.quantizer_name)
    };
    comparison.entries.iter().map(short).collect()
}

const OFF: &str = "{quantizer_name: '*', enable: false}";
const W8: &str = "{quantizer_name: w, cfg: {num_bits: 8}}";
const W4: &str = "{quantizer_name: w, cfg: {num_bits: 4}}";
const HEAD: &str = "{quantizer_name: head, enable: false}";

#[test]
fn the_same_entries_are_the_same_however_they_are_spelt() {
    let spelt = "{quantizer_name: w, cfg: {num_bits: 8}, enable: true, parent_class: null}";
    assert!(differences(&format!("{OFF}, {W8}"), &format!("{OFF}, {spelt}")).is_empty());
}

#[test]
fn entries_of_one_side_and_changed_ones_are_told_apart() {
    let (a, b) = (format!("{OFF}, {W8}, {HEAD}"), format!("{OFF}, {W4}"));
    assert_eq!(differences(&a, &b), ["Changed w 1 1", "OnlyA head 2 -"]);
    assert_eq!(differences(&b, &a), ["Changed w 1 1", "OnlyB head - 2"]);
}

#[test]
fn an_entry_at_another_place_is_moved_because_later_ones_win() {
    let (a, b) = (format!("{OFF}, {HEAD}, {W8}"), format!("{OFF}, {W8}, {HEAD}"));
    assert_eq!(differences(&a, &b), ["Moved head 1 2"]);
}

#[test]
fn the_same_pattern_on_another_class_is_another_entry() {
    let a = "{quantizer_name: w, parent_class: nn.Linear, enable: false}";
    let b = "{quantizer_name: w, parent_class: nn.Embedding, enable: false}";
    assert_eq!(differences(a, b), ["OnlyA w 0 -", "OnlyB w - 0"]);
}

#[test]
fn algorithms_and_types_are_compared_key_by_key() {
    let bench = Workbench::new();
    let settings = |a: &str, b: &str| {
        let comparison = compare(&bench.load(a).unwrap(), &bench.load(b).unwrap()).unwrap();
        comparison.settings
    };
    let keys: Vec<String> =
        settings("nvfp4_awq_lite", "nvfp4").into_iter().map(|setting| setting.key).collect();
    assert!(keys.iter().all(|key| key.starts_with("algorithm")) && !keys.is_empty(), "{keys:?}");
    let across = settings("general/ptq/nvfp4_default-kv_fp8", "general/auto_quantize/nvfp4_fp8_at_5p4bits");
    let kind = across.iter().find(|setting| setting.key == "recipe_type").unwrap();
    assert_eq!((kind.a.clone().unwrap(), kind.b.clone().unwrap()), ("ptq".into(), "auto_quantize".into()));
    assert!(across.iter().any(|setting| setting.key == "auto_quantize.constraints.effective_bits"));
}

#[test]
fn every_recipe_of_the_library_is_the_same_as_itself() {
    let library = crate::recipe::Library::embedded();
    for listing in crate::recipe::list(&library) {
        if let Ok(recipe) = crate::recipe::load_recipe(&library, &listing.name, &[]) {
            assert!(compare(&recipe, &recipe).unwrap().is_empty(), "{}", listing.name);
        }
    }
}
