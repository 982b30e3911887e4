//! Examining finds everything that is wrong, and says of each where it stands.

use super::workbench::{ATTRIBUTES, ENTRIES, Workbench};
use super::*;

/// Place and message of each error, and a check that each has a remedy.
fn errors(bench: &Workbench, name: &str) -> Vec<String> {
    let examination = examine(&bench.library(), name).unwrap();
    let line = |error: &crate::Error| {
        assert!(error.hint.is_some() && error.place.line.is_some(), "{error}");
        bench.tidy(&format!("{} {}", error.place, error.message))
    };
    examination.errors.iter().map(line).collect()
}

fn recipe(text: &str) -> Vec<String> {
    errors(&Workbench::new().with("r.yaml", text), "r")
}

#[test]
fn errors_of_siblings_are_all_found() {
    let text = "\
metadata: {recipe_type: ptq, author: me}
extra: 1
quantize:
  algoritm: max
  algorithm: 3
  effective_bits: 17 bits
  quant_cfg:
    - {quantizer_name: a}
    - {quantizer_name: b, cfg: {num_bit: 8, axes: 1}, enabled: true}
    - {enable: 3}
    - text
    - {quantizer_name: c, enable: false}
";
    assert_eq!(
        recipe(text),
        [
            "r.yaml:1:30 (`metadata.author`) unknown key `author`",
            "r.yaml:2:1 (`extra`) unknown key `extra`",
            "r.yaml:4:3 (`quantize.algoritm`) unknown key `algoritm`",
            "r.yaml:5:14 (`quantize.algorithm`) `algorithm` is a name, a mapping, a list or null, not a number",
            "r.yaml:6:19 (`quantize.effective_bits`) invalid type: string \"17 bits\", expected f64",
            "r.yaml:8:7 (`quantize.quant_cfg.0`) an entry needs `cfg`, `enable` or both: a name alone changes nothing",
            "r.yaml:9:33 (`quantize.quant_cfg.1.cfg.num_bit`) unknown key `num_bit`",
            "r.yaml:9:45 (`quantize.quant_cfg.1.cfg.axes`) unknown key `axes`",
            "r.yaml:9:55 (`quantize.quant_cfg.1.enabled`) unknown key `enabled`",
            "r.yaml:10:7 (`quantize.quant_cfg.2.quantizer_name`) `quantizer_name` is missing",
            "r.yaml:10:16 (`quantize.quant_cfg.2.enable`) invalid type: integer `3`, expected a boolean",
            "r.yaml:11:7 (`quantize.quant_cfg.3`) a quantizer entry is a mapping, not text",
        ]
    );
}

#[test]
fn bad_imports_do_not_hide_other_errors_and_are_told_once() {
    let bench = Workbench::new()
        .with("bad.yaml", &format!("{ATTRIBUTES}num_bits: 8\nnum_bit: 8\naxes: 0\n"))
        .with("good.yaml", &format!("{ENTRIES}- {{quantizer_name: a, enable: false}}\n"))
        .with(
            "r.yaml",
            "\
metadata: {recipe_type: ptq}
imports: {gone: nowhere, bad: bad, good: good}
quantize:
  quant_cfg:
    - $import: gone
    - {quantizer_name: a, cfg: {$import: gone}}
    - {quantizer_name: b, cfg: {$import: bad}}
    - $import: unknown
    - $import: good
    - {quantizer_name: c}
  algoritm: max
",
        );
    assert_eq!(
        errors(&bench, "r"),
        [
            "bad.yaml:3:1 (`num_bit`) in the import `bad`: unknown key `num_bit`",
            "bad.yaml:4:1 (`axes`) in the import `bad`: unknown key `axes`",
            "r.yaml:2:17 (`imports.gone`) there is no file `nowhere`: looked for `nowhere.yml`, `nowhere.yaml` and in the library",
            "r.yaml:8:16 (`quantize.quant_cfg.3`) unknown import `unknown`",
            "r.yaml:10:7 (`quantize.quant_cfg.1`) an entry needs `cfg`, `enable` or both: a name alone changes nothing",
            "r.yaml:11:3 (`quantize.algoritm`) unknown key `algoritm`",
        ]
    );
}

#[test]
fn searches_and_training_recipes_are_examined_to_the_end() {
    let search = "\
metadata: {recipe_type: auto_quantize}
auto_quantize:
  constraints: {effective_bits: 4.8, cost: {ratio: 1}, extra: 1}
  candidate_formats: [{algorithm: 3}, {quant_cfg: 3}]
  module_search_spaces: [{module_name_pattern: [a]}]
  auto_quantize_method: guess
  score_sice: 3
";
    let errors = recipe(search);
    for expected in [
        "(`auto_quantize.constraints.extra`)",
        "(`auto_quantize.candidate_formats.0.algorithm`)",
        "(`auto_quantize.candidate_formats.1.quant_cfg`)",
        "(`auto_quantize.module_search_spaces.0.module_name_pattern`)",
        "(`auto_quantize.auto_quantize_method`)",
        "(`auto_quantize.score_sice`)",
    ] {
        assert!(errors.iter().any(|error| error.contains(expected)), "{expected} in {errors:#?}");
    }
    let training = "metadata: {recipe_type: speculative_eagle}\nmodel: {name: x}\ndata: {path: x}\ntraining: 3\neagle: {}\n";
    assert_eq!(
        recipe(training),
        [
            "r.yaml:2:9 (`model.name`) unknown key `name`",
            "r.yaml:3:8 (`data.path`) unknown key `path`",
            "r.yaml:4:11 (`training`) a section of a training recipe is a mapping, not a number",
        ]
    );
}

#[test]
fn the_first_error_found_is_the_one_that_loading_tells() {
    let text =
        "metadata: {recipe_type: ptq}\nquantize: {quant_cfg: [{quantizer_name: a}, {quantizer_name: b}]}\n";
    let bench = Workbench::new().with("r.yaml", text);
    let examination = examine(&bench.library(), "r").unwrap();
    assert_eq!(examination.errors.len(), 2);
    assert!(examination.recipe.is_none());
    assert_eq!(bench.load("r").unwrap_err(), examination.errors[0]);
}

#[test]
fn a_sound_file_has_its_kind_its_recipe_and_its_places() {
    let bench = Workbench::new();
    let kind = |name: &str| examine(&bench.library(), name).unwrap().kind;
    assert_eq!(kind("mxfp8"), Some(Kind::Preset));
    assert_eq!(kind("configs/numerics/fp8"), Some(Kind::Snippet));
    let examination = examine(&bench.library(), "general/ptq/fp8_default-fp8_kv").unwrap();
    assert_eq!(examination.kind, Some(Kind::Recipe(RecipeType::Ptq)));
    assert_eq!(examination.errors, []);
    assert_eq!(examination.renamed.as_ref().unwrap().found, "general/ptq/fp8_default-kv_fp8");
    let recipe = examination.recipe.as_ref().unwrap();
    let count = recipe.quantize().unwrap().quant_cfg.len();
    let last = examination.mark(&format!("quantize.quant_cfg.{}", count - 1)).unwrap();
    assert!(last.source.file.ends_with("default_disabled_quantizers.yaml"), "{last:?}");
    let error = examination.locate(crate::Error::input("x"), "quantize.quant_cfg.99.cfg");
    assert!(error.place.file.unwrap().ends_with("fp8_default-kv_fp8.yaml") && error.place.line.is_some());
}

#[test]
fn old_spellings_of_the_algorithm_are_noted_with_todays() {
    let text = "\
metadata: {recipe_type: ptq}
quantize:
  quant_cfg: [{quantizer_name: a, enable: false}]
  algorithm:
    - {method: max, layerwise: true}
    - method: gptq
      use_sequential: false
      layerwise_checkpoint_dir: /tmp/x
";
    let bench = Workbench::new().with("r.yaml", text);
    let warnings = examine(&bench.library(), "r").unwrap().warnings;
    let notes: Vec<String> = warnings.iter().map(|note| bench.tidy(note)).collect();
    assert_eq!(
        notes,
        [
            "r.yaml:5: `layerwise` is a form of older releases; today's is `layerwise: {enable: true}`",
            "r.yaml:7: `use_sequential` is a form of older releases; today's is `layerwise: {enable: false}`",
            "r.yaml:8: `layerwise_checkpoint_dir` is a form of older releases; today's is \
             `layerwise: {enable: true, checkpoint_dir: DIR}`",
        ]
    );
    assert_eq!(bench.load("r").unwrap().notes, warnings, "loading notes them too");
}

#[test]
fn many_errors_are_enough_and_cost_little() {
    let mut entries = String::new();
    for number in 0..20_000 {
        entries.push_str(&format!("    - {{quantizer_name: a{number}, cfg: {{x: 1, y: 2}}}}\n"));
    }
    let text = format!("metadata: {{recipe_type: ptq}}\nquantize:\n  quant_cfg:\n{entries}");
    assert_eq!(recipe(&text).len(), 100);
    let keys: String = (0..20_000).map(|number| format!("      key{number}: 1\n")).collect();
    let text = format!(
        "metadata: {{recipe_type: ptq}}\nquantize:\n  quant_cfg:\n  - quantizer_name: a\n    cfg:\n{keys}"
    );
    assert!(recipe(&text).len() >= 10);
}

#[test]
fn broken_snippets_that_multiply_are_read_once() {
    let mut bench = Workbench::new().with("s0.yaml", &format!("{ENTRIES}- {{quantizer_name: a}}\n"));
    for level in 1..=24 {
        let below = level - 1;
        let text = format!(
            "{ENTRIES}imports: {{n: s{below}, m: ./s{below}, o: s{below}.yaml}}\n---\n- $import: n\n- $import: m\n- $import: o\n"
        );
        bench = bench.with(&format!("s{level}.yaml"), &text);
    }
    let head = "metadata: {recipe_type: ptq}\nimports: {x: s24}\nquantize: {quant_cfg: [{$import: x}]}\n";
    assert_eq!(errors(&bench.with("r.yaml", head), "r").len(), 1);
}
