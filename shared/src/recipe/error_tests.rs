//! Every error of the loader, with its message, place and remedy.

use super::workbench::{ATTRIBUTES, ENTRIES, Workbench};

const HEAD: &str = "metadata: {recipe_type: ptq}\n";

#[track_caller]
fn assert_refused(text: &str, expected: &str) {
    assert_eq!(Workbench::new().with("r.yaml", text).refusal("r"), expected);
}

#[test]
fn an_unknown_recipe_suggests_the_closest() {
    let bench = Workbench::new();
    for asked in ["general/ptq/fp8_defualt-kv_fp8", "fp8_default-kv_fp8"] {
        assert_eq!(
            bench.refusal(asked),
            format!(
                "there is no recipe `{asked}`\n\nhint: did you mean `general/ptq/fp8_default-kv_fp8`? \
                 `qlaunch recipe list` shows all"
            )
        );
    }
    assert!(bench.refusal("zzzzzzzzz").ends_with("a path names a file or folder of your own"));
}

#[test]
fn a_recipe_without_type_is_refused() {
    let expected = "a recipe must say its type under `metadata.recipe_type`\n  at r.yaml:1:1 (`metadata.recipe_type`)\n\n\
                    hint: add `metadata:` with `recipe_type: ptq` below it (types: ptq, auto_quantize, speculative_eagle, \
                    speculative_dflash, speculative_medusa)";
    assert_refused("quantize: {}\n", expected);
    assert_refused("metadata: {description: x}\nquantize: {}\n", expected);
    assert_refused("# nothing\n", expected);
}

#[test]
fn an_unknown_type_suggests_the_closest() {
    assert_refused(
        "metadata:\n  recipe_type: ptqq\nquantize: {}\n",
        "unknown value `ptqq`\n  at r.yaml:2:16 (`metadata.recipe_type`)\n\nhint: did you mean `ptq`?",
    );
}

#[test]
fn a_recipe_without_its_section_is_refused() {
    assert_refused(
        HEAD,
        "a recipe of type `ptq` must contain `quantize`\n  at r.yaml:1:1 (`quantize`)\n\n\
         hint: add `quantize:`, or change `metadata.recipe_type`",
    );
    let text = "metadata: {recipe_type: speculative_medusa}\n";
    assert!(
        Workbench::new()
            .with("r.yaml", text)
            .refusal("r")
            .starts_with("a recipe of type `speculative_medusa` must contain `medusa`")
    );
}

#[test]
fn a_recipe_in_two_documents_is_refused() {
    assert_refused(
        "imports: {}\n---\nmetadata: {recipe_type: ptq}\nquantize: {}\n",
        "a recipe is a single YAML document: expected a single document\n  at r.yaml:1:1\n\n\
         hint: remove the `---` line between imports and recipe; only snippets have two documents",
    );
}

#[test]
fn documents_that_do_not_go_together_are_refused() {
    for (text, expected) in [
        (
            "a: 1\n---\nb: 2\n---\nc: 3\n",
            "expected 1 or 2 YAML documents, got 3\n  at r.yaml:5:1\n\nhint: put `imports:` into the first document and everything else into the second",
        ),
        (
            "- a\n---\nb: 2\n",
            "the first of two YAML documents must be a mapping, not a list\n  at r.yaml:1:1\n\nhint: put `imports:` into the first document and everything else into the second",
        ),
        (
            "a: 1\n---\ntext\n",
            "the second of two YAML documents must be a mapping or a list, not text\n  at r.yaml:3:1\n\nhint: put `imports:` into the first document and everything else into the second",
        ),
        (
            "just text\n",
            "a recipe file holds a mapping or a list, not text\n  at r.yaml:1:1\n\nhint: compare `qlaunch recipe show general/ptq/nvfp4_default-kv_fp8`, which works",
        ),
    ] {
        assert_refused(text, expected);
    }
}

#[test]
fn an_unknown_key_names_line_and_suggestion() {
    assert_refused(
        "metadata: {recipe_type: ptq}\nquantise: {}\nquantize: {}\n",
        "unknown key `quantise`\n  at r.yaml:2:1 (`quantise`)\n\nhint: did you mean `quantize`?",
    );
    assert_eq!(
        Workbench::refused_body("  algoritm: max\n  quant_cfg: []\n"),
        "unknown key `algoritm`\n  at r.yaml:3:3 (`quantize.algoritm`)\n\nhint: did you mean `algorithm`?"
    );
    assert_eq!(
        Workbench::refused_body("  quant_cfg:\n    - quantizer_name: a\n      cfg: {num_bit: 8}\n"),
        "unknown key `num_bit`\n  at r.yaml:5:13 (`quantize.quant_cfg.0.cfg.num_bit`)\n\nhint: did you mean `num_bits`?"
    );
    assert_eq!(
        Workbench::refused_body("  quant_cfg:\n    - quantizer_nam: a\n      enable: true\n"),
        "unknown key `quantizer_nam`\n  at r.yaml:4:7 (`quantize.quant_cfg.0.quantizer_nam`)\n\n\
         hint: did you mean `quantizer_name`?"
    );
}

#[test]
fn an_override_must_be_an_assignment() {
    let bench = Workbench::new();
    let refusal = |text| bench.load_with("general/ptq/fp8_default-kv_fp8", &[text]).unwrap_err();
    assert_eq!(
        refusal("quantize.algorithm").to_string(),
        "the override `quantize.algorithm` has no `=`\n\nhint: write it as `quantize.algorithm=max`"
    );
    assert_eq!(refusal("quantize.algorithm").exit_code(), 2);
    assert!(
        refusal("quantize.quant_cfg.99.enable=true")
            .to_string()
            .starts_with("`99` is no index of this list of 28")
    );
    assert!(refusal("quantize..x=1").to_string().contains("has an empty key"));
    assert_eq!(
        refusal("quantize.algoritm=max").to_string(),
        "unknown key `algoritm`\n  at override `quantize.algoritm`:1:19 (`quantize.algoritm`)\n\nhint: did you mean `algorithm`?"
    );
}

#[test]
fn folders_take_no_overrides_and_need_both_parts() {
    let bench = Workbench::new().with("mine/metadata.yaml", "recipe_type: ptq\n");
    assert_eq!(
        bench.refusal("mine"),
        "a recipe folder needs a file `quantize.yml` or `quantize.yaml`\n  at mine\n\nhint: add `quantize.yaml`"
    );
    let error = bench.load_with("mine", &["quantize.algorithm=max"]).unwrap_err();
    assert!(error.message.starts_with("overrides are for recipes in a single file"));
    let bench = Workbench::new()
        .with("mine/metadata.yaml", "recipe_type: auto_quantize\n")
        .with("mine/quantize.yaml", "{}");
    assert!(
        bench.refusal("mine").starts_with("a recipe folder holds recipes of type `ptq`, not `auto_quantize`")
    );
}

#[test]
fn snippets_are_not_run() {
    assert_eq!(
        Workbench::new().refusal("configs/numerics/fp8"),
        "this file is a snippet (quantizer attributes), to be imported by recipes\n  at <library>/configs/numerics/fp8.yaml:3:1\n\n\
         hint: `qlaunch recipe show` shows snippets; `qlaunch recipe list` shows recipes"
    );
    assert!(
        Workbench::new()
            .refusal("general/distillation/dmd2_qwen_image")
            .starts_with("a recipe must say its type")
    );
}

fn importing(lines: &str) -> String {
    format!("{HEAD}imports: {{x: snippet}}\nquantize:\n{lines}")
}

#[test]
fn an_import_that_is_not_there_suggests_the_closest() {
    let text = format!("{HEAD}imports:\n  fp8: configs/numerics/fp9\nquantize: {{}}\n");
    assert_refused(
        &text,
        "there is no file `configs/numerics/fp9`: looked for `configs/numerics/fp9.yml`, `configs/numerics/fp9.yaml` and in \
         the library\n  at r.yaml:3:8 (`imports.fp8`)\n\nhint: did you mean `configs/numerics/fp8`?",
    );
}

#[test]
fn imports_must_be_a_mapping_of_paths() {
    assert_refused(
        &format!("{HEAD}imports: [a]\nquantize: {{}}\n"),
        "`imports` maps names to paths, and is a list here\n  at r.yaml:2:10 (`imports`)\n\n\
         hint: write `imports:` and below it lines like `fp8: configs/numerics/fp8`",
    );
    assert_refused(
        &format!("{HEAD}imports: {{fp8: }}\nquantize: {{}}\n"),
        "the import `fp8` has no path\n  at r.yaml:2:11 (`imports.fp8`)\n\nhint: write `fp8: configs/numerics/fp8` or the like",
    );
}

#[test]
fn a_snippet_needs_exactly_one_known_schema() {
    let refusal = |snippet: &str| {
        Workbench::new().with("snippet.yaml", snippet).with("r.yaml", &importing("  {}\n")).refusal("r")
    };
    assert_eq!(
        refusal("num_bits: 8\n"),
        "the import `x` has no `modelopt-schema` comment: snippet.yaml\n  at r.yaml:2:14 (`imports.x`)\n\nhint: start it with \
         `# modelopt-schema: modelopt.torch.quantization.config.QuantizerCfgListConfig` or the like"
    );
    assert_eq!(
        refusal(&format!("{ATTRIBUTES}{ATTRIBUTES}num_bits: 8\n")),
        "a second `modelopt-schema` comment\n  at snippet.yaml:2:1 (`modelopt-schema`)\n\nhint: keep one of them"
    );
    assert!(
        refusal("# modelopt-schema: os.system\nnum_bits: 8\n")
            .starts_with("the schema `os.system` does not start with `modelopt.`")
    );
    assert!(
        refusal("# modelopt-schema: modelopt.nothing.Here\nnum_bits: 8\n")
            .starts_with("there is no schema `modelopt.nothing.Here`")
    );
    assert!(
        refusal(&format!("num_bits: 8\n{ATTRIBUTES}"))
            .starts_with("the import `x` has no `modelopt-schema` comment")
    );
}

#[test]
fn a_snippet_must_be_what_its_schema_says() {
    let bench = Workbench::new()
        .with("snippet.yaml", &format!("{ATTRIBUTES}num_bits: 8\nnum_bit: 8\n"))
        .with("r.yaml", &importing("  {}\n"));
    assert_eq!(
        bench.refusal("r"),
        "in the import `x`: unknown key `num_bit`\n  at snippet.yaml:3:1 (`num_bit`)\n\nhint: did you mean `num_bits`?"
    );
}

#[test]
fn unknown_import_names_list_the_known_ones() {
    let entry = "  quant_cfg:\n    - $import: y\n";
    assert_refused(
        &format!("{HEAD}quantize:\n{entry}"),
        "unknown import `y`: no imports are declared in this file\n  at r.yaml:4:16 (`quantize.quant_cfg.0`)\n\n\
         hint: add `imports:` with a line `y: PATH` to this file",
    );
    let bench = Workbench::new()
        .with("snippet.yaml", &format!("{ENTRIES}- {{quantizer_name: a, enable: true}}\n"))
        .with("r.yaml", &importing(entry));
    assert_eq!(
        bench.refusal("r"),
        "unknown import `y`\n  at r.yaml:5:16 (`quantize.quant_cfg.0`)\n\nhint: known here: `x`"
    );
}

#[test]
fn imports_in_a_circle_are_refused() {
    let snippet = |next: &str| format!("{ENTRIES}imports: {{n: {next}}}\n---\n- $import: n\n");
    let bench = Workbench::new()
        .with("snippet.yaml", &snippet("b"))
        .with("b.yaml", &snippet("./snippet.yaml"))
        .with("r.yaml", &importing("  quant_cfg: [{$import: x}]\n"));
    assert_eq!(
        bench.refusal("r"),
        "in the import `x`: in the import `n`: circular import: `r.yaml` → `snippet.yaml` → `b.yaml` → `snippet.yaml`\n  \
         at b.yaml:2:14 (`imports.n`)\n\nhint: remove one of these imports"
    );
}

#[cfg(unix)]
#[test]
fn a_circle_through_links_is_found_too() {
    let bench = Workbench::new()
        .with("snippet.yaml", &format!("{ENTRIES}imports: {{n: link}}\n---\n- $import: n\n"))
        .with("r.yaml", &importing("  quant_cfg: [{$import: x}]\n"));
    std::os::unix::fs::symlink("snippet.yaml", bench.path().join("link.yaml")).unwrap();
    assert!(bench.refusal("r").contains("circular import"));
    std::os::unix::fs::symlink("loop.yaml", bench.path().join("loop.yaml")).unwrap();
    assert!(bench.refusal("loop").starts_with("there is no recipe `loop`"));
}

#[test]
fn imports_must_fit_their_place() {
    let bench = |snippet: &str, lines: &str| {
        Workbench::new().with("snippet.yaml", snippet).with("r.yaml", &importing(lines)).refusal("r")
    };
    let list = format!("{ENTRIES}- {{quantizer_name: a, enable: true}}\n");
    let attributes = format!("{ATTRIBUTES}num_bits: 8\n");
    assert_eq!(
        bench(&list, "  quant_cfg:\n    - quantizer_name: a\n      cfg: {$import: x}\n"),
        "`$import` inside a mapping needs a mapping, and this is a list\n  at r.yaml:6:22 (`quantize.quant_cfg.0.cfg`)\n\n\
         hint: import a list as a list element of its own: `- $import: name`"
    );
    assert_eq!(
        bench(&attributes, "  quant_cfg:\n    - $import: x\n"),
        "this place takes a list of quantizer entries or a quantizer entry, and the import is quantizer attributes\n  \
         at r.yaml:5:16 (`quantize.quant_cfg.0`)\n\nhint: import a snippet of either shape, or change its `modelopt-schema` comment"
    );
    assert!(
        bench(&attributes, "  algorithm: [{$import: x}]\n")
            .starts_with("`$import` as a list element needs a list of known shape here")
    );
    assert!(
        bench(&list, "  quant_cfg:\n    - $import: [x]\n").starts_with("a list element imports one name")
    );
    assert!(
        bench(&list, "  quant_cfg:\n    - {$import: 3, enable: true}\n")
            .starts_with("`$import` takes a name, not a number")
    );
}

#[test]
fn imports_that_multiply_are_refused() {
    let mut bench =
        Workbench::new().with("s0.yaml", &format!("{ENTRIES}- {{quantizer_name: a, enable: true}}\n"));
    for level in 1..=30 {
        let text = format!(
            "{ENTRIES}imports: {{n: s{}}}\n---\n- $import: n\n- $import: n\n- $import: n\n",
            level - 1
        );
        bench = bench.with(&format!("s{level}.yaml"), &text);
    }
    let bench = bench
        .with("r.yaml", &format!("{HEAD}imports: {{x: s30}}\nquantize: {{quant_cfg: [{{$import: x}}]}}\n"));
    assert!(bench.refusal("r").contains("imports expand to more than a recipe may hold"));
}

#[test]
fn endless_chains_of_imports_are_refused() {
    let mut bench = Workbench::new();
    for level in 0..40 {
        let text = format!("{ENTRIES}imports: {{n: s{}}}\n---\n- $import: n\n", level + 1);
        bench = bench.with(&format!("s{level}.yaml"), &text);
    }
    let bench = bench
        .with("r.yaml", &format!("{HEAD}imports: {{x: s0}}\nquantize: {{quant_cfg: [{{$import: x}}]}}\n"));
    assert!(bench.refusal("r").contains("more than 32 files import one another in a chain"));
}

#[test]
fn a_file_that_is_not_text_is_refused() {
    let bench = Workbench::new();
    std::fs::write(bench.path().join("r.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    assert_eq!(bench.refusal("r"), "the file is not UTF-8 text\n  at r.yaml\n\nhint: save it as UTF-8");
}

#[test]
fn an_entry_must_change_something() {
    let refusal = |entry: &str| Workbench::refused_body(&format!("  quant_cfg:\n    - {entry}\n"));
    assert_eq!(
        refusal("{quantizer_name: a}"),
        "an entry needs `cfg`, `enable` or both: a name alone changes nothing\n  at r.yaml:4:7 (`quantize.quant_cfg.0`)\n\nhint: compare `qlaunch recipe show general/ptq/nvfp4_default-kv_fp8`, which works"
    );
    for entry in [
        "{quantizer_name: a, cfg: {}}",
        "{quantizer_name: a, cfg: []}",
        "{quantizer_name: a, cfg: [{}], enable: true}",
    ] {
        assert_eq!(
            refusal(entry),
            "an empty `cfg` says nothing: leave it out to keep the attributes, or set `enable: false`\n  \
             at r.yaml:4:32 (`quantize.quant_cfg.0.cfg`)\n\nhint: compare `qlaunch recipe show general/ptq/nvfp4_default-kv_fp8`, which works"
        );
    }
    assert!(refusal("{enable: false}").starts_with("`quantizer_name` is missing"));
    assert!(refusal("text").starts_with("a quantizer entry is a mapping, not text"));
    assert!(
        refusal("{quantizer_name: a, enable: 3}")
            .starts_with("invalid type: integer `3`, expected a boolean")
    );
}

#[test]
fn every_refusal_has_a_remedy() {
    for text in [
        "quantize: [\n",
        "metadata: 3\nquantize: {}\n",
        "metadata: {recipe_type: ptq, more: 1}\nquantize: {}\n",
        "metadata: {recipe_type: ptq}\nquantize: 3\n",
        "metadata: {recipe_type: ptq}\nquantize: {quant_cfg: 3}\n",
        "metadata: {recipe_type: ptq}\nquantize: {algorithm: 3}\n",
        "metadata: {recipe_type: ptq}\nquantize: {effective_bits: 17}\n",
        "metadata: {recipe_type: ptq}\nquantize: {quant_cfg: [{quantizer_name: a, cfg: {num_bits: e9m9}}]}\n",
        "metadata: {recipe_type: ptq}\nquantize: {quant_cfg: [{quantizer_name: a, cfg: {num_bits: nvfp4}}]}\n",
        "metadata: {recipe_type: ptq}\nquantize: {quant_cfg: [{quantizer_name: a, cfg: {enable: true}}]}\n",
        "metadata: {recipe_type: ptq}\nquantize: {quant_cfg: [{quantizer_name: a, cfg: [3]}]}\n",
        "a: &a [*a]\n",
        "a: !!set {b}\n",
    ] {
        let error = Workbench::new().with("r.yaml", text).load("r").unwrap_err();
        assert!(error.hint.is_some() && error.place.line.is_some(), "{text}: {error}");
    }
}
