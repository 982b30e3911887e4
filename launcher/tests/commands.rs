//! The single-shot commands and bad input through the real program, with a worker that only pretends.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "each test file uses a part of the world")]
mod fake;

use std::fs;

use fake::{World, model};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not one JSON document ({error}): {text}"))
}

/// A model folder that a command line can name.
fn model_name() -> String {
    model().display().to_string()
}

/// Run folders of single jobs that were left behind.
fn run_folders(world: &World) -> Vec<String> {
    fs::read_dir(world.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("qlaunch-"))
        .collect()
}

#[test]
fn quantize_writes_the_checkpoint_and_leaves_no_run_folder() {
    let world = World::new();
    let arguments = [
        "quantize",
        &model_name(),
        "--recipe",
        "general/ptq/fp8_default-kv_fp8",
        "--calib",
        "calib.txt",
        "--out",
        "out",
    ];
    let ran = world.run(&arguments);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("gate size         pass     ratio 0.5"), "{}", ran.stdout);
    assert!(world.path("out/model.safetensors").is_file());
    let left = run_folders(&world);
    assert!(left.is_empty(), "{left:?}");

    let again = world.run(&arguments);
    assert_eq!(again.code, 3);
    assert!(again.stderr.contains("the output folder is not empty\n  at out"), "{}", again.stderr);
}

#[test]
fn quantize_tells_its_gates_by_its_exit_code_and_its_outcome_as_json() {
    let world = World::new();
    world.tell("quantize.gate", "fail");
    let recipe = "general/ptq/nvfp4_weight_only-kv_fp16";
    let ran = world.run(&["quantize", &model_name(), "--recipe", recipe, "--out", "out", "--format", "json"]);
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert_eq!(json(&ran.stdout)["gates"][0]["verdict"], "fail");
}

#[test]
fn a_recipe_that_needs_calibration_asks_for_it_before_anything_runs() {
    let world = World::new();
    let ran =
        world.run(&["quantize", &model_name(), "--recipe", "general/ptq/fp8_default-kv_fp8", "--out", "out"]);
    assert_eq!(ran.code, 2);
    insta::assert_snapshot!(ran.stderr, @r"
    error: the recipe `general/ptq/fp8_default-kv_fp8` needs calibration data

    hint: add `--calib FILE` with .jsonl, .txt or .npy data
    ");
    assert!(world.ran().is_empty());
}

#[test]
fn eval_shows_the_perplexity_and_one_json_document() {
    let world = World::new();
    let ran = world.run(&["eval", &model_name(), "--data", "calib.txt", "--reference", &model_name()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    insta::assert_snapshot!(ran.stdout.trim_end(), @"perplexity 100.00 · nll 4.60000 · KL 0.0100 · 511 tokens, windows: 1");
    let ran = world.run(&["eval", &model_name(), "--data", "calib.txt", "--format", "json"]);
    let shown = json(&ran.stdout);
    for (key, value) in
        [("perplexity", 100.0), ("nll", 4.6), ("tokens", 511.0), ("kl_mean", 0.01), ("windows", 1.0)]
    {
        assert_eq!(shown[key].as_f64(), Some(value), "{key}: {}", ran.stdout);
    }
}

#[test]
fn a_failed_job_shows_the_workers_own_error_and_code() {
    let world = World::new();
    world.tell("eval", "fail");
    let ran = world.run(&["eval", &model_name(), "--data", "calib.txt", "--format", "json"]);
    assert_eq!(ran.code, 3);
    assert!(
        ran.stderr.contains("error: NaN in a weight\n  at `lm_head.weight`\n\nhint: check the model"),
        "{}",
        ran.stderr
    );
    assert_eq!(json(&ran.stdout)["error"]["message"], "NaN in a weight");
    assert_eq!(ran.stderr.matches("NaN in a weight").count(), 1, "{}", ran.stderr);
    assert!(run_folders(&world).is_empty(), "the error says all, so nothing is left to read");

    world.tell("eval", "mute");
    let ran = world.run(&["eval", &model_name(), "--data", "calib.txt"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("hint: read its log: `less WORLD/qlaunch-eval-"), "{}", ran.stderr);
    assert_eq!(run_folders(&world).len(), 1, "the log is all there is to read");
}

#[test]
fn plan_tells_each_modules_numerics_and_exact_bytes_as_json() {
    let world = World::new();
    let ran =
        world.run(&["plan", &model_name(), "--recipe", "general/ptq/fp8_default-kv_fp8", "--format", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let plan = json(&ran.stdout);
    let modules = plan["modules"].as_array().unwrap();
    let named = |name: &str| modules.iter().find(|module| module["name"] == name).unwrap();
    assert_eq!(named("model.layers.0.self_attn.k_proj")["output"], "FP8");
    assert_eq!(named("lm_head")["weight"], "bf16");
    assert!(plan["totals"]["bytes"].as_u64() > Some(1_000_000));
}

#[test]
fn recipe_show_and_list_speak_yaml_and_json() {
    let world = World::new();
    let name = "general/ptq/fp8_default-kv_fp8";
    let shown = json(&world.run(&["recipe", "show", name, "--format", "json"]).stdout);
    assert_eq!(shown["metadata"]["recipe_type"], "ptq");
    let list = json(&world.run(&["recipe", "list", "--format", "json"]).stdout);
    assert!(list.as_array().unwrap().iter().any(|recipe| recipe["name"] == name), "{list}");
    let unknown = world.run(&["recipe", "show", "general/ptq/fp8_defualt-kv_fp8"]);
    assert_eq!(unknown.code, 3);
    assert!(unknown.stderr.contains(name), "{}", unknown.stderr);
}

#[test]
fn a_sweep_that_asks_nothing_is_refused_with_the_lines_to_add() {
    let world = World::new();
    let sweep = fs::read_to_string(world.path("sweep.yaml")).unwrap();
    let sweep: String = sweep
        .lines()
        .filter(|line| !["objective", "acceptance", "  perplexity"].iter().any(|key| line.starts_with(key)))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(world.path("sweep.yaml"), sweep).unwrap();
    let ran = world.run(&["submit", "sweep.yaml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (3, ""));
    insta::assert_snapshot!(ran.stderr, @r"
    error: the sweep has no objective and no acceptance rule
      at sweep.yaml

    hint: add to sweep.yaml:

    objective: memory            # or `compute`, or {key: active_bytes_per_token, goal: min}
    acceptance:
      perplexity: {within: 1%, of: bf16}
    ");
}

#[test]
fn faults_of_a_sweep_are_found_before_anything_runs() {
    let world = World::new();
    let sweep = fs::read_to_string(world.path("sweep.yaml")).unwrap();
    for (from, to, told) in [
        ("nvfp4_default-kv_fp8", "nvfp4_defualt-kv_fp8", "candidate `second`"),
        ("evaluate: {data: calib.txt", "evaluate: {data: missing.txt", "there is no such data file"),
        ("baselines: [bf16]", "baselines: [bf16, f16]", "the model is bf16, so there is no baseline `f16`"),
        ("calibration: {data: calib.txt}\n", "", "the recipe needs calibration data"),
        ("objective: memory", "objectiv: memory", "WORLD/sweep.yaml:4:1 (`objectiv`)"),
    ] {
        assert!(sweep.contains(from), "{from}");
        fs::write(world.path("sweep.yaml"), sweep.replace(from, to)).unwrap();
        let path = world.path("sweep.yaml").display().to_string();
        let ran = world.run(&["submit", &path]);
        assert_eq!(ran.code, 3, "{}", ran.stderr);
        assert!(ran.stderr.contains(told), "{told}: {}", ran.stderr);
    }
    assert!(world.ran().is_empty() && !world.path("runs").exists());
}

#[test]
fn clusters_of_an_unknown_kind_or_without_a_profile_are_refused() {
    let world = World::new();
    fs::create_dir(world.path("clusters")).unwrap();
    fs::write(
        world.path("clusters/dgx.toml"),
        "kind = \"slrm\"\njobs = 1\nattempts = 1\ntemplate = \"local.sh.j2\"\n",
    )
    .unwrap();
    let ran = world.run(&["submit", "--cluster", "dgx", "sweep.yaml"]);
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.contains("`slrm` is none of the values"), "{}", ran.stderr);
    assert!(ran.stderr.contains("did you mean `slurm`"), "{}", ran.stderr);
    let ran = world.run(&["submit", "--cluster", "dgy", "sweep.yaml"]);
    assert!(ran.stderr.contains("did you mean `dgx`"), "{}", ran.stderr);
}

#[test]
fn a_worker_that_is_not_there_is_an_error_with_the_remedy() {
    let world = World::new();
    fs::remove_file(world.path("worker.sh")).unwrap();
    let ran = world.run(&["submit", "sweep.yaml"]);
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.contains("hint: build it with `cargo build --release`"), "{}", ran.stderr);
}

#[test]
fn usage_errors_have_code_2_and_runs_that_are_not_there_code_3() {
    let world = World::new();
    assert_eq!(world.run(&["submit"]).code, 2);
    assert_eq!(world.run(&["eval", "x", "--data", "y", "--samples", "0"]).code, 2);
    assert_eq!(world.run(&["--help"]).code, 0);
    let ran = world.run(&["portfolio"]);
    assert_eq!(ran.code, 3);
    assert!(ran.stderr.contains("there is no run yet"), "{}", ran.stderr);
}

#[test]
fn a_preset_takes_a_kv_cache_and_an_older_name_is_told() {
    let world = World::new();
    let arguments = ["plan", &model_name(), "--recipe", "fp8", "--kv-cache", "fp8", "--format", "json"];
    let ran = world.run(&arguments);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(json(&ran.stdout)["coverage"]["kv_cache"][0], "FP8");
    assert!(ran.stderr.contains("note: `fp8` is called"), "{}", ran.stderr);

    let sweep = fs::read_to_string(world.path("sweep.yaml")).unwrap();
    let preset = "{name: second, recipe: nvfp4, kv_cache: fp8}";
    let candidate = "{name: second, recipe: general/ptq/nvfp4_default-kv_fp8}";
    fs::write(world.path("sweep.yaml"), sweep.replace(candidate, preset)).unwrap();
    let ran = world.run(&["submit", "sweep.yaml", "--dry-run"]);
    assert!(
        ran.stdout.contains("56 of 57 linears NVFP4, lm_head bf16, KV cache FP8 in 8 layers"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_reader_that_has_read_enough_is_no_error() {
    let world = World::new();
    for arguments in [&["recipe", "list"][..], &["recipe", "list", "--format", "json"]] {
        let mut child = world
            .command(arguments)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Closed before the first byte, so that every write meets a broken pipe.
        drop(child.stdout.take());
        let ran = world.read(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{arguments:?}");
    }
}
