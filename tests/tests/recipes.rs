//! Recipes as a person handles them: listed, shown, checked, compared, started anew, and taken from other folders.

use std::path::{Path, PathBuf};

use qlaunch_tests::checkpoint::read_folder;
use qlaunch_tests::places::{existing, tiny_llama};
use qlaunch_tests::programs::{Call, Quantize, finish, qlaunch, run};
use serde_json::Value;

const USAGE: i32 = 2;
const INPUT: i32 = 3;
const FP8: &str = "general/ptq/fp8_default-kv_fp8";

/// A folder of its own to work in, without recipes.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs `qlaunch` here, with variables.
    fn run_with(&self, variables: &[(&str, &Path)], arguments: &[&str]) -> Call {
        let mut command = qlaunch(self.path());
        command.current_dir(self.path()).args(arguments).envs(variables.iter().copied());
        finish(command)
    }

    fn run(&self, arguments: &[&str]) -> Call {
        self.run_with(&[], arguments)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["--format", "json"]].concat()).json()
    }
}

/// A PTQ recipe around these entries, each on a line of its own from line 4 on.
fn recipe(entries: &[&str]) -> String {
    let lines: String = entries.iter().map(|entry| format!("    - {entry}\n")).collect();
    format!("metadata: {{recipe_type: ptq}}\nquantize:\n  quant_cfg:\n{lines}")
}

fn model() -> String {
    tiny_llama().display().to_string()
}

#[test]
fn a_broken_file_of_a_folder_is_listed_with_its_error_among_all_others() {
    let desk = Desk::new();
    desk.write("mine/broken.yaml", "metadata: [\n");
    desk.write("mine/good.yaml", &recipe(&["{quantizer_name: a, enable: false}"]));
    let call = desk.run(&["recipe", "list", "--recipes", "mine"]);
    call.assert_code(0);
    assert!(call.stdout.contains("broken") && call.stdout.contains(FP8), "{}", call.stdout);
    assert!(call.stderr.contains("qlaunch recipe check broken"), "{}", call.stderr);
    let all = desk.json(&["recipe", "list", "--recipes", "mine"]);
    let named = |name: &str| all.as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap();
    assert_eq!(named("broken")["type"], "broken");
    assert!(named("broken")["error"]["place"]["file"].as_str().unwrap().ends_with("broken.yaml"));
    assert_eq!((&named("good")["type"], named("good").get("error")), (&Value::from("ptq"), None));
}

#[test]
fn a_folder_of_recipes_comes_from_flag_variable_or_settings() {
    let desk = Desk::new();
    let text = |word: &str| {
        recipe(&["{quantizer_name: a, enable: false}"])
            .replace("ptq}", &format!("ptq, description: {word}}}"))
    };
    for word in ["flag", "variable", "settings"] {
        desk.write(&format!("{word}/{FP8}.yaml"), &text(word));
    }
    desk.write("qlaunch.toml", "recipes = \"settings\"\n");
    let show = ["recipe", "show", FP8, "--format", "json"];
    let variable = desk.path().join("variable");
    let description = |call: Call| call.json()["metadata"]["description"].clone();
    assert_eq!(description(desk.run(&show)), "settings");
    let variables = [("QLAUNCH_RECIPES", variable.as_path())];
    assert_eq!(description(desk.run_with(&variables, &show)), "variable");
    let flagged = [&show[..], &["--recipes", "flag"]].concat();
    assert_eq!(description(desk.run_with(&variables, &flagged)), "flag");
}

#[test]
fn a_folder_of_recipes_that_is_not_there_is_refused_wherever_recipes_are_asked_for() {
    let (desk, model) = (Desk::new(), model());
    let (out, sweep) = ("out", desk.write("s.yaml", ""));
    std::fs::copy(existing("examples/sweeps/tiny-llama.yaml"), &sweep).unwrap();
    let text = std::fs::read_to_string(&sweep).unwrap();
    let examples = existing("examples").display().to_string();
    std::fs::write(&sweep, text.replace("../", &format!("{examples}/"))).unwrap();
    for arguments in [
        &["recipe", "list"][..],
        &["recipe", "show", FP8],
        &["recipe", "check", FP8],
        &["recipe", "diff", "fp8", "nvfp4"],
        &["recipe", "new", "mine"],
        &["plan", &model, "--recipe", "fp8"],
        &["quantize", &model, "--recipe", "w4a16_nvfp4", "--out", out],
        &["submit", "s.yaml", "--dry-run"],
    ] {
        let call = desk.run(&[arguments, &["--recipes", "nowhere"]].concat());
        call.assert_refused(INPUT, &["nowhere", "does not exist", "`--recipes`"]);
        let call = desk.run_with(&[("QLAUNCH_RECIPES", Path::new("gone"))], arguments);
        call.assert_refused(INPUT, &["gone", "QLAUNCH_RECIPES"]);
    }
}

#[test]
fn a_check_reports_every_error_with_its_line_and_a_remedy() {
    let desk = Desk::new();
    let entries = [
        "{quantizer_name: '*', enable: false}",
        "{quantizer_name: '*weight_quantizer', cfg: {num_bit: e4m3}}",
        "{quantizer_nam: x, enable: true}",
        "{quantizer_name: y}",
    ];
    desk.write("mine.yaml", &(recipe(&entries) + "  algoritm: max\n"));
    let call = desk.run(&["recipe", "check", "mine.yaml"]);
    call.assert_code(INPUT);
    for expected in [
        "mine.yaml:5:51 (`quantize.quant_cfg.1.cfg.num_bit`)",
        "mine.yaml:6:8 (`quantize.quant_cfg.2.quantizer_nam`)",
        "mine.yaml:7:7 (`quantize.quant_cfg.3`)",
        "mine.yaml:8:3 (`quantize.algoritm`)",
        "hint: did you mean `num_bits`?",
        "5 errors",
    ] {
        assert!(call.stdout.contains(expected), "{expected} in\n{}", call.stdout);
    }
    let call = desk.run(&["recipe", "check", "mine.yaml", "--format", "json"]);
    call.assert_code(INPUT);
    let report: Value = serde_json::from_str(&call.stdout).unwrap();
    let errors = report["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 5, "{errors:#?}");
    for error in errors {
        assert!(error["hint"].is_string() && error["place"]["line"].is_u64(), "{error}");
    }
    desk.run(&["recipe", "check", "nothing"]).assert_refused(INPUT, &["nothing"]);
}

#[test]
fn a_check_looks_into_the_algorithm_and_names_todays_form() {
    let desk = Desk::new();
    let text = recipe(&["{quantizer_name: '*', enable: false}"])
        + "  algorithm: {method: max, use_sequential: true}\n";
    desk.write("old.yaml", &text);
    let call = desk.run(&["recipe", "check", "old.yaml"]);
    call.assert_code(INPUT);
    for expected in ["use_sequential", "old.yaml:5:", "quantize.algorithm", "layerwise: {enable: true"] {
        assert!(call.stdout.contains(expected), "{expected} in\n{}", call.stdout);
    }
    desk.write("odd.yaml", &text.replace("max, use_sequential: true", "awq_light"));
    let call = desk.run(&["recipe", "check", "odd.yaml"]);
    call.assert_code(INPUT);
    assert!(call.stdout.contains("awq_light") && call.stdout.contains("odd.yaml:5:"), "{}", call.stdout);
    let call = desk.run(&["recipe", "show", "old.yaml"]);
    call.assert_code(0);
    assert!(call.stderr.contains("old.yaml:5: `use_sequential`"), "{}", call.stderr);
}

#[test]
fn a_check_on_a_model_tells_own_patterns_that_match_nothing_and_what_is_covered() {
    let (desk, model) = (Desk::new(), model());
    let entries = [
        "{quantizer_name: '*', enable: false}",
        "{quantizer_name: '*weight_quantizer', cfg: {num_bits: e4m3}}",
        "{quantizer_name: '*no_such_thing*', cfg: {num_bits: e4m3}}",
        "{quantizer_name: '*nor_this*', cfg: {num_bits: e4m3}}",
        "{quantizer_name: '*input_quantizer', cfg: {num_bits: e4m3}}",
        "{quantizer_name: '*', parent_class: nn.Embedding, enable: false}",
    ];
    desk.write("mine.yaml", &recipe(&entries));
    desk.run(&["recipe", "check", "mine.yaml"]).assert_code(0);
    let call = desk.run(&["recipe", "check", "mine.yaml", "--model", &model]);
    call.assert_code(INPUT);
    for expected in ["`*no_such_thing*`", "mine.yaml:6:", "`*nor_this*`", "mine.yaml:7:", "2 errors"] {
        assert!(call.stdout.contains(expected), "{expected} in\n{}", call.stdout);
    }
    let report = desk.json(&["recipe", "check", "general/ptq/nvfp4_mlp_only-kv_fp8", "--model", &model]);
    let warnings = report["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|warning| warning["message"].as_str().unwrap().contains("block_sparse_moe")));
    assert!(report["plan"]["coverage"]["linears"].as_u64().unwrap() > 0);
    assert_eq!(report["errors"].as_array().unwrap().len(), 0);
}

#[test]
fn a_plan_names_the_line_of_an_own_pattern_that_matches_nothing() {
    let (desk, model) = (Desk::new(), model());
    let entries = [
        "{quantizer_name: '*weight_quantizer', cfg: {num_bits: e4m3}}",
        "{quantizer_name: '*no_such_thing*', cfg: {num_bits: e4m3}}",
    ];
    desk.write("mine.yaml", &recipe(&entries));
    let call = desk.run(&["plan", &model, "--recipe", "mine.yaml"]);
    call.assert_code(INPUT);
    for expected in ["`*no_such_thing*`", "mine.yaml:5:", "qlaunch plan MODEL"] {
        assert!(call.stderr.contains(expected), "{expected} in\n{}", call.stderr);
    }
}

/// Queries in FP8 and everything else of the layers in NVFP4.
const MIXED_QUERIES: [&str; 4] = [
    "{quantizer_name: '*', enable: false}",
    "{quantizer_name: '*layers*proj.weight_quantizer', cfg: {num_bits: e2m1, block_sizes: {-1: 16, type: dynamic, scale_bits: e4m3}}}",
    "{quantizer_name: '*layers*proj.input_quantizer', cfg: {num_bits: e2m1, block_sizes: {-1: 16, type: dynamic, scale_bits: e4m3}}}",
    "{quantizer_name: '*q_proj*weight_quantizer', cfg: {num_bits: e4m3}}",
];

#[test]
fn a_fused_group_of_mixed_numerics_is_refused_by_name_or_made_to_agree() {
    let (desk, model) = (Desk::new(), model());
    let mut entries = MIXED_QUERIES.to_vec();
    entries.push("{quantizer_name: '*q_proj*input_quantizer', cfg: {num_bits: e4m3}}");
    desk.write("mixed.yaml", &recipe(&entries));
    let planned = ["plan", &model, "--recipe", "mixed.yaml"];
    let call = desk.run(&planned);
    call.assert_code(INPUT);
    for expected in
        ["q/k/v group of `model.layers.0.self_attn`", "`q_proj` FP8, `k_proj` NVFP4", "--fix-groups"]
    {
        assert!(call.stderr.contains(expected), "{expected} in\n{}", call.stderr);
    }

    let call = desk.run(&[planned.as_slice(), &["--fix-groups"]].concat());
    call.assert_code(0);
    assert!(call.stdout.contains("as FP8, which stores the most bits"), "{}", call.stdout);

    let out = desk.path().join("checkpoint");
    let mixed = desk.path().join("mixed.yaml");
    Quantize::new(&tiny_llama(), &mixed.to_string_lossy(), &out).flags(&["--fix-groups"]).run().json();
    let tensors = read_folder(&out);
    for projection in ["q_proj", "k_proj", "v_proj"] {
        let weight = &tensors[&format!("model.layers.0.self_attn.{projection}.weight")];
        assert_eq!(weight.dtype, "F8_E4M3", "{projection}");
    }
    assert_eq!(tensors["model.layers.0.self_attn.o_proj.weight"].dtype, "U8", "NVFP4 is packed");
}

#[test]
fn a_model_of_which_only_config_and_index_are_there_is_planned() {
    let desk = Desk::new();
    let header = read_folder(&tiny_llama());
    let bytes: usize = header.values().map(|tensor| tensor.bytes.len()).sum();
    let names: serde_json::Map<String, Value> =
        header.keys().map(|name| (name.clone(), "model-00001-of-00001.safetensors".into())).collect();
    let index = serde_json::json!({ "metadata": { "total_size": bytes }, "weight_map": names });
    desk.write("far/model.safetensors.index.json", &index.to_string());
    let config = std::fs::read_to_string(tiny_llama().join("config.json")).unwrap();
    desk.write("far/config.json", &config);
    let far = desk.json(&["plan", "far", "--recipe", FP8]);
    let near = desk.json(&["plan", &model(), "--recipe", FP8]);
    // The size of the source's headers is not known, what would be written is.
    let paths = ["/assignment", "/modules", "/coverage", "/engines", "/totals/bytes", "/totals/parameters"];
    for key in paths {
        assert!(near.pointer(key).is_some(), "there is no `{key}`");
        assert!(far.pointer(key) == near.pointer(key), "`{key}` differs");
    }
    let call = desk.run(&["quantize", "far", "--recipe", FP8, "--out", "nowhere"]);
    call.assert_code(INPUT);
    assert!(!desk.path().join("nowhere").exists(), "{}", call.stderr);
}

#[test]
fn a_comparison_tells_entries_settings_and_modules() {
    let (desk, model) = (Desk::new(), model());
    let doc = desk.json(&["recipe", "diff", "nvfp4", "fp8", "--model", &model]);
    assert_eq!(doc["same"], false);
    let entries = doc["entries"].as_array().unwrap();
    assert!(entries.iter().all(|entry| entry["change"] == "changed"), "{entries:#?}");
    let names: Vec<&str> = entries.iter().map(|entry| entry["quantizer_name"].as_str().unwrap()).collect();
    assert_eq!(names, ["*weight_quantizer", "*input_quantizer"]);
    let modules = doc["modules"].as_array().unwrap();
    let of = |name: &str| {
        modules.iter().find(|module| module["modules"].as_str().unwrap().ends_with(name)).unwrap()
    };
    let down = of("mlp.down_proj");
    assert_eq!(
        (&down["modules"], &down["same"]),
        (&"model.layers.{0-7}.mlp.down_proj".into(), &false.into())
    );
    assert_eq!((&down["a"]["weight"], &down["b"]["weight"]), (&"NVFP4".into(), &"FP8".into()));
    assert_eq!(of("lm_head")["same"], true);
    let same = desk.json(&["recipe", "diff", "fp8", "configs/ptq/presets/model/fp8"]);
    assert_eq!((&same["same"], &same["modules"]), (&true.into(), &Value::Null));
    let call = desk.run(&["recipe", "diff", "nvfp4_awq_lite", "nvfp4"]);
    call.assert_code(0);
    assert!(call.stdout.contains("awq_lite"), "{}", call.stdout);
}

#[test]
fn a_recipe_that_cannot_run_on_the_model_leaves_the_entries_to_compare() {
    let desk = Desk::new();
    let call = desk.run(&[
        "recipe",
        "diff",
        "fp8",
        "general/auto_quantize/nvfp4_fp8_at_5p4bits",
        "--model",
        &model(),
    ]);
    call.assert_code(0);
    assert!(call.stdout.contains("recipe_type") && call.stdout.contains("auto_quantize"), "{}", call.stdout);
    assert!(call.stderr.contains("no comparison on the model"), "{}", call.stderr);
}

#[test]
fn a_new_recipe_does_what_it_was_started_from_and_is_never_overwritten() {
    let (desk, model) = (Desk::new(), model());
    let assignment = |recipe: &str| desk.json(&["plan", &model, "--recipe", recipe])["assignment"].clone();
    for (name, from) in [("mine", FP8), ("team/fast", "nvfp4"), ("moe", "general/ptq/nvfp4_mlp_only-kv_fp8")]
    {
        let call = desk.run(&["recipe", "new", name, "--from", from]);
        call.assert_code(0);
        assert!(call.stderr.contains(&format!("qlaunch recipe check {name}")), "{}", call.stderr);
        desk.run(&["recipe", "check", name, "--model", &model]).assert_code(0);
        assert_eq!(assignment(name), assignment(from), "{name}");
        assert_eq!(desk.json(&["recipe", "diff", name, from])["same"], true, "{name}");
    }
    let path = desk.path().join("recipes/mine.yaml");
    let before = std::fs::read_to_string(&path).unwrap();
    assert!(before.contains("# from configs/ptq/units/kv_fp8"), "{before}");
    desk.run(&["recipe", "new", "mine"]).assert_refused(INPUT, &["mine", "already"]);
    desk.run(&["recipe", "new", "other", "--out", "recipes/mine.yaml"]).assert_refused(INPUT, &["mine.yaml"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    desk.run(&["recipe", "new", FP8]).assert_refused(INPUT, &[FP8]);
    desk.run(&["recipe", "new", "../mine"]).assert_refused(USAGE, &["../mine"]);
    desk.run(&["recipe", "new", "x", "--from", "configs/numerics/fp8"])
        .assert_refused(INPUT, &["configs/numerics/fp8"]);
    let document = desk.json(&["recipe", "new", "x", "--from", "mxfp8", "--out", "deep/x.yaml"]);
    assert_eq!(document["file"], "deep/x.yaml");
    desk.run(&["recipe", "check", "deep/x.yaml"]).assert_code(0);
}

#[test]
fn presets_go_by_path_or_bare_name_with_a_kv_cache() {
    let model = model();
    let assignment = |arguments: &[&str]| {
        let call = run([&["plan", &model, "--format", "json"], arguments].concat());
        call.json()["assignment"].clone()
    };
    let whole = assignment(&["--recipe", FP8]);
    assert_eq!(assignment(&["--recipe", "fp8", "--kv-cache", "fp8"]), whole);
    assert_eq!(assignment(&["--recipe", "configs/ptq/presets/model/fp8", "--kv-cache", "fp8"]), whole);
    assert_ne!(assignment(&["--recipe", "fp8"]), whole);
    run(["plan", &model, "--recipe", FP8, "--kv-cache", "fp8"]).assert_refused(USAGE, &["KV cache"]);
    run(["plan", &model, "--recipe", "fp8", "--kv-cache", "fp9"]).assert_refused(INPUT, &["fp9", "fp8"]);
}

#[test]
fn recipes_that_train_or_search_are_shown_but_not_run() {
    let (desk, model) = (Desk::new(), model());
    for (name, reason) in [
        ("general/speculative_decoding/eagle3", "draft model"),
        ("general/speculative_decoding/dflash", "draft model"),
        ("general/auto_quantize/nvfp4_fp8_at_5p4bits", "search"),
    ] {
        desk.run(&["recipe", "show", name]).assert_code(0);
        desk.run(&["recipe", "check", name]).assert_code(0);
        desk.run(&["plan", &model, "--recipe", name]).assert_refused(INPUT, &[name, reason]);
        let call = desk.run(&["quantize", &model, "--recipe", name, "--out", "out"]);
        call.assert_refused(INPUT, &[name, reason]);
        assert!(!desk.path().join("out").exists());
    }
    let distillation = "general/distillation/dmd2_qwen_image";
    desk.run(&["recipe", "show", distillation]).assert_code(0);
    desk.run(&["plan", &model, "--recipe", distillation]).assert_refused(INPUT, &["must say its type"]);
}

/// `UPDATE_DOCS=1 cargo test -p qlaunch-tests --test recipes` writes the page anew.
#[test]
fn the_reference_page_of_the_library_is_current() {
    let call = run(["recipe", "page"]);
    call.assert_code(0);
    let path = existing("docs").join("recipe-library.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &call.stdout).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == call.stdout,
        "docs/recipe-library.md is stale: UPDATE_DOCS=1 cargo test -p qlaunch-tests --test recipes"
    );
    for name in ["general/ptq/fp8_default-kv_fp8", "configs/numerics/nvfp4", "huggingface/vit/ptq/fp8"] {
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
    }
}
