//! Composing recipes: every form of `imports` and `$import`, both lookup orders, folders and overrides.

use super::workbench::{ATTRIBUTES, ENTRIES, Workbench};
use super::*;

const HEAD: &str = "metadata: {recipe_type: ptq}\n";

#[test]
fn a_mapping_starts_from_its_imports_in_order_and_its_own_keys_win_without_merging_deeper() {
    let bench = Workbench::new()
        .with("wide.yaml", &format!("{ATTRIBUTES}num_bits: 8\naxis: 0\n"))
        .with("blocks.yaml", &format!("{ATTRIBUTES}num_bits: e2m1\nblock_sizes: {{-1: 16, type: dynamic}}\n"))
        .with(
            "r.yaml",
            &format!(
                "{HEAD}imports: {{wide: wide, blocks: blocks}}\nquantize:\n  quant_cfg:\n    - quantizer_name: a\n      \
                 cfg: {{$import: [wide, blocks], axis: null, block_sizes: {{-1: 32}}}}\n"
            ),
        );
    assert_eq!(
        bench.entries("r"),
        r#"[{"cfg":{"axis":null,"block_sizes":{"-1":32},"num_bits":[2,1]},"quantizer_name":"a"}]"#
    );
}

#[test]
fn an_entry_can_be_an_import_with_changes() {
    let bench = Workbench::new().with(
        "r.yaml",
        &format!(
            "{HEAD}imports: {{none: configs/ptq/units/base_disable_all}}\nquantize:\n  quant_cfg:\n    \
             - {{$import: none, quantizer_name: '*lm_head*'}}\n"
        ),
    );
    assert_eq!(bench.entries("r"), r#"[{"enable":false,"quantizer_name":"*lm_head*"}]"#);
}

#[test]
fn lists_are_spliced_and_elements_appended() {
    let bench = Workbench::new()
        .with("two.yaml", &format!("{ENTRIES}- {{quantizer_name: a, enable: true}}\n- {{quantizer_name: b, enable: true}}\n"))
        .with(
            "r.yaml",
            &format!(
                "{HEAD}imports: {{two: two, base: configs/ptq/units/base_disable_all}}\n\
                 quantize:\n  quant_cfg:\n    - $import: base\n    - $import: two\n    - {{quantizer_name: c, enable: false}}\n"
            ),
        );
    let names: Vec<String> = bench
        .load("r")
        .unwrap()
        .quantize()
        .unwrap()
        .quant_cfg
        .iter()
        .map(|e| e.quantizer_name.clone())
        .collect();
    assert_eq!(names, ["*", "a", "b", "c"]);
}

#[test]
fn attributes_are_appended_to_a_sequence() {
    let bench = Workbench::new().with(
        "r.yaml",
        &format!(
            "{HEAD}imports: {{int4: configs/numerics/int4_per_block, fp8: configs/numerics/fp8}}\nquantize:\n  \
             quant_cfg:\n    - quantizer_name: a\n      cfg:\n        - $import: int4\n        - $import: fp8\n"
        ),
    );
    let recipe = bench.load("r").unwrap();
    assert_eq!(recipe.quantize().unwrap().quant_cfg[0].cfg.attributes().len(), 2);
}

#[test]
fn names_are_known_only_in_the_file_that_declares_them() {
    let inner =
        format!("{ENTRIES}imports:\n  n: eight\n---\n- quantizer_name: inner\n  cfg: {{$import: n}}\n");
    let bench = Workbench::new()
        .with("eight.yaml", &format!("{ATTRIBUTES}num_bits: 8\n"))
        .with("four.yaml", &format!("{ATTRIBUTES}num_bits: 4\n"))
        .with("inner.yaml", &inner)
        .with(
            "r.yaml",
            &format!(
                "{HEAD}imports: {{n: four, inner: inner}}\nquantize:\n  quant_cfg:\n    - $import: inner\n    \
                 - quantizer_name: outer\n      cfg: {{$import: n}}\n"
            ),
        );
    assert_eq!(
        bench.entries("r"),
        r#"[{"cfg":{"num_bits":8},"quantizer_name":"inner"},{"cfg":{"num_bits":4},"quantizer_name":"outer"}]"#
    );
}

#[test]
fn a_second_document_wins_over_the_first() {
    let text = "# modelopt-schema: modelopt.torch.quantization.config.QuantizeConfig\n\
                imports: {base: configs/ptq/units/base_disable_all}\nalgorithm: awq_lite\n---\nalgorithm: max\n\
                quant_cfg: [{$import: base}]\n";
    let bench = Workbench::new().with("p.yaml", text);
    assert_eq!(
        bench.resolved("p"),
        r#"{"algorithm":"max","quant_cfg":[{"enable":false,"quantizer_name":"*"}]}"#
    );
}

#[test]
fn float_formats_are_read_at_any_depth_and_in_either_case() {
    let body = "  algorithm: {method: x, inner: {num_bits: E5M2}}\n  quant_cfg:\n    - quantizer_name: a\n      \
                cfg: {num_bits: e2m1, block_sizes: {-1: 16, type: dynamic, scale_bits: E4m3}}\n";
    let bench = Workbench::new().with("r.yaml", &format!("{HEAD}quantize:\n{body}"));
    let resolved = bench.resolved("r");
    assert!(resolved.contains(r#""inner":{"num_bits":[5,2]}"#), "{resolved}");
    assert!(resolved.contains(r#""scale_bits":[4,3]"#), "{resolved}");
}

#[test]
fn imports_are_looked_up_in_the_working_folder_before_the_library() {
    let bench = Workbench::new()
        .with("configs/numerics/fp8.yml", &format!("{ATTRIBUTES}num_bits: 5\n"))
        .with("general/ptq/fp8_default-kv_fp8.yaml", "broken: [\n");
    let recipe = bench.load("general/ptq/fp8_default-kv_fp8").unwrap();
    assert_eq!(recipe.origin, Origin::BuiltIn, "recipes are looked up in the library first");
    let weight = &recipe.quantize().unwrap().quant_cfg[1].cfg.attributes()[0];
    assert_eq!(weight.num_bits, Some(crate::numerics::NumBits::Integer(5)));
}

#[test]
fn a_suffix_is_probed_and_a_dotted_stem_has_none() {
    let bench = Workbench::new()
        .with("my.quant_cfg.yml", &format!("{ENTRIES}- {{quantizer_name: a, enable: true}}\n"))
        .with(
            "r.yml",
            &format!("{HEAD}imports: {{mine: my.quant_cfg}}\nquantize: {{quant_cfg: [{{$import: mine}}]}}\n"),
        );
    assert_eq!(bench.entries("r"), r#"[{"enable":true,"quantizer_name":"a"}]"#);
    let absolute = bench.path().join("r");
    assert!(bench.load(absolute.to_str().unwrap()).is_ok());
}

#[test]
fn entries_know_whether_they_are_somebodys_own() {
    let bench = Workbench::new().with(
        "r.yaml",
        &format!(
            "{HEAD}imports: {{body: configs/ptq/units/w8a8_fp8_fp8, fp8: configs/numerics/fp8}}\nquantize:\n  quant_cfg:\n    \
             - $import: body\n    - {{quantizer_name: mine, cfg: {{$import: fp8}}}}\n"
        ),
    );
    let recipe = bench.load("r").unwrap();
    let origins: Vec<EntryOrigin> =
        recipe.quantize().unwrap().quant_cfg.iter().map(|entry| entry.origin).collect();
    assert_eq!(origins, [EntryOrigin::Library, EntryOrigin::Library, EntryOrigin::Own]);
    assert!(matches!(recipe.origin, Origin::Own(_)));
}

#[test]
fn folders_hold_recipes_in_parts() {
    let body =
        "imports: {base: configs/ptq/units/base_disable_all}\nalgorithm: max\nquant_cfg: [{$import: base}]\n";
    for (head, metadata) in [
        ("metadata.yml", "recipe_type: ptq\ndescription: d\n"),
        ("metadata.yaml", "recipe_type: ptq\ndescription: d\n"),
        ("recipe.yml", "metadata:\n  recipe_type: ptq\n  description: d\n"),
        ("recipe.yaml", "recipe_type: ptq\ndescription: d\n"),
    ] {
        let bench = Workbench::new().with(&format!("mine/{head}"), metadata).with("mine/quantize.yaml", body);
        assert_eq!(
            bench.resolved("mine"),
            r#"{"metadata":{"description":"d","recipe_type":"ptq"},"quantize":{"algorithm":"max","quant_cfg":[{"enable":false,"quantizer_name":"*"}]}}"#,
            "{head}"
        );
    }
}

#[test]
fn imports_of_recipe_yml_are_known_in_quantize_yml() {
    let bench = Workbench::new()
        .with(
            "mine/recipe.yml",
            "imports: {base: configs/ptq/units/base_disable_all}\nmetadata: {recipe_type: ptq}\n",
        )
        .with("mine/quantize.yml", "algorithm: max\nquant_cfg:\n  - $import: base\n");
    assert_eq!(bench.entries("mine"), r#"[{"enable":false,"quantizer_name":"*"}]"#);
}

#[test]
fn a_folder_without_a_recipe_does_not_hide_a_preset() {
    let bench = Workbench::new().with("mxfp8/readme.txt", "my outputs");
    assert_eq!(bench.load("mxfp8").unwrap().name, "configs/ptq/presets/model/mxfp8");
}

#[test]
fn overrides_set_values_deep_inside() {
    let bench = Workbench::new();
    let recipe = bench
        .load_with(
            "general/ptq/nvfp4_default-kv_fp8",
            &[
                "quantize.algorithm.method=mse",
                "quantize.algorithm.step=1e-3",
                "quantize.quant_cfg.0.enable=yes",
            ],
        )
        .unwrap();
    let config = recipe.quantize().unwrap();
    assert_eq!(config.algorithm, serde_json::json!({"method": "mse", "step": 0.001}));
    assert!(config.quant_cfg[0].enable);
    let description =
        bench.load_with("general/ptq/nvfp4_default-kv_fp8", &["metadata.description=a = b"]).unwrap();
    assert_eq!(description.metadata.description.as_deref(), Some("a = b"));
}

#[test]
fn older_spellings_of_quant_cfg_are_understood_and_noted() {
    let body = "  quant_cfg:\n    '*weight_quantizer': {num_bits: 8, axis: 0}\n    default: {enable: false}\n    \
                nn.Linear: {'*input_quantizer': {num_bits: 8, enable: true}}\n";
    let bench = Workbench::new().with("r.yaml", &format!("{HEAD}quantize:\n{body}"));
    assert_eq!(
        bench.entries("r"),
        r#"[{"cfg":{"axis":0,"num_bits":8},"quantizer_name":"*weight_quantizer"},{"cfg":null,"enable":false,"quantizer_name":"*"},{"cfg":{"num_bits":8},"enable":true,"parent_class":"nn.Linear","quantizer_name":"*input_quantizer"}]"#
    );
    let recipe = bench.load("r").unwrap();
    assert_eq!(recipe.notes.len(), 1);
    assert!(recipe.notes[0].contains("the form of older releases"), "{:?}", recipe.notes);
}

#[test]
fn an_empty_cfg_that_is_switched_off_is_no_cfg() {
    let body = "  quant_cfg:\n    - {quantizer_name: a, cfg: {}, enable: false}\n    - {quantizer_name: b, cfg: [{}], enable: false}\n";
    let bench = Workbench::new().with("r.yaml", &format!("{HEAD}quantize:\n{body}"));
    assert_eq!(
        bench.entries("r"),
        r#"[{"cfg":null,"enable":false,"quantizer_name":"a"},{"cfg":null,"enable":false,"quantizer_name":"b"}]"#
    );
}

#[test]
fn without_entries_everything_becomes_eight_bit_integers() {
    let bench = Workbench::new().with("r.yaml", &format!("{HEAD}quantize: {{algorithm: null}}\n"));
    assert_eq!(bench.resolved("r"), r#"{"metadata":{"recipe_type":"ptq"},"quantize":{"algorithm":null}}"#);
    let recipe = bench.load("r").unwrap();
    let entry = &recipe.quantize().unwrap().quant_cfg[0];
    assert_eq!((entry.quantizer_name.as_str(), entry.enable), ("*", true));
    let back: Recipe = serde_json::from_str(&serde_json::to_string(&recipe).unwrap()).unwrap();
    assert_eq!(back, recipe);
}
