//! Sweeps and the store: one calibration for all candidates, what they have in common made once, and what a person sees of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qlaunch_tests::places::{calibration_ids, evaluation_ids, tiny_llama};
use qlaunch_tests::programs::{Call, finish, qlaunch};
use qlaunch_tests::stored::{artifacts, phases, step};
use qlaunch_tests::worker_job::{files, outcome};
use serde_json::{Value, json};

/// A sweep of these candidates in a folder.
fn submit(home: &Path, candidates: &[Value]) -> Call {
    let sweep = home.join("sweep.yaml");
    let text = json!({
        "version": 1, "name": "many", "model": tiny_llama(), "objective": "memory",
        "acceptance": {"perplexity": {"within": "90%", "of": "bf16"}},
        "calibration": {"data": calibration_ids(), "samples": 18, "seq_len": 48, "batch_size": 8},
        "evaluate": {"data": evaluation_ids(), "samples": 2, "seq_len": 32, "batch_size": 2},
        "baselines": ["bf16"],
        "candidates": candidates,
    });
    fs::write(&sweep, text.to_string()).unwrap();
    let mut command = qlaunch(home);
    command.args(["submit", "--cluster", "local", "--yes", "--format", "json"]).arg(&sweep);
    command.current_dir(home);
    finish(command)
}

/// A recipe of one's own: FP8 for all linears but the head and those that are left out.
fn recipe(home: &Path, name: &str, without: &[&str]) -> PathBuf {
    let on =
        |quantizer: &str| json!({"quantizer_name": quantizer, "enable": true, "cfg": {"num_bits": "e4m3"}});
    let off = |quantizer: &str| json!({"quantizer_name": quantizer, "enable": false});
    let mut entries = vec![
        off("*"),
        on("*weight_quantizer"),
        on("*input_quantizer"),
        off("*lm_head*"),
        off("*embed_tokens*"),
    ];
    entries.extend(without.iter().map(|quantizer| off(quantizer)));
    let text = json!({
        "metadata": {"recipe_type": "ptq"}, "quantize": {"algorithm": "max", "quant_cfg": entries},
    });
    let path = home.join(format!("{name}.yaml"));
    fs::write(&path, text.to_string()).unwrap();
    path
}

/// Attempts of all jobs of a run that had a phase.
fn attempts_with(run: &Path, phase: &str) -> usize {
    let jobs = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
    jobs.filter(|job| {
        let attempt = job.join("attempts/1");
        outcome(&attempt).is_some() && phases(&attempt).iter().any(|own| own == phase)
    })
    .count()
}

/// What the store's own commands say of a store that a sweep has filled.
#[test]
fn a_store_is_listed_verified_explained_and_swept() {
    let home = tempfile::tempdir().unwrap();
    let call = submit(
        home.path(),
        &[json!("general/ptq/fp8_default-kv_fp8"), json!("general/ptq/nvfp4_mlp_only-kv_fp8")],
    );
    let run = home.path().join("runs").join(call.json()["run"].as_str().unwrap());
    let ask = |arguments: &[&str]| {
        let mut command = qlaunch(home.path());
        command.args(arguments).args(["--format", "json"]).current_dir(home.path());
        finish(command)
    };
    let listed = ask(&["store", "ls"]).json();
    let all = listed["artifacts"].as_array().unwrap();
    // 2 candidates: embedding and head are the same, layers are not.
    let of =
        |step: &str| all.iter().filter(|artifact| artifact["manifest"]["origin"]["step"] == step).count();
    assert_eq!(of("layer"), 8 + 8 + 2);
    let shared = all.iter().filter(|artifact| artifact["checkpoints"] == 2).count();
    assert_eq!(shared, 3, "what is only copied is in both checkpoints, and the tokenizer");
    let whole = ask(&["store", "verify"]);
    whole.assert_code(0);
    assert_eq!(whole.json()["whole"], all.len());

    // A layer of the second candidate says in what it differs from that of the first.
    let layer = all.iter().find(|artifact| {
        artifact["manifest"]["about"].as_str().unwrap().starts_with("layer 3 of tiny-llama")
    });
    let key = layer.unwrap()["manifest"]["key"].as_str().unwrap();
    let why = ask(&["store", "why", &key[..10]]).json();
    assert_eq!(why["checkpoints"].as_array().unwrap().len(), 1);
    assert!(why["manifest"]["origin"]["inputs"]["statistics"].is_string());

    // What checkpoints have stays, whatever is asked for; the rest goes.
    let checkpoint = run.join("fp8_default-kv_fp8/checkpoint");
    let weights = files(&checkpoint);
    let planned = ask(&["store", "gc", "--dry-run"]).json();
    let gone = ask(&["store", "gc"]).json();
    assert_eq!(gone["removed"], planned["removed"]);
    assert_eq!(artifacts(&home.path().join("runs/.store")).len(), 18 + 1);
    let checkpoint_text = checkpoint.display().to_string();
    ask(&["verify", &checkpoint_text]).assert_code(0);
    assert!(files(&checkpoint) == weights);

    // Without the run nothing is of use.
    fs::remove_dir_all(&run).unwrap();
    ask(&["store", "gc"]).assert_code(0);
    assert!(artifacts(&home.path().join("runs/.store")).is_empty());
}

#[test]
fn a_sweep_of_twelve_calibrates_once_and_a_thirteenth_costs_what_is_new() {
    let home = tempfile::tempdir().unwrap();
    let recipes = [
        "general/ptq/fp8_default-kv_fp8",
        "general/ptq/nvfp4_default-kv_fp8",
        "general/ptq/nvfp4_mlp_only-kv_fp8",
        "general/ptq/nvfp4_weight_only-kv_fp16",
        "general/ptq/fp8_default-kv_fp8_cast",
        "general/ptq/nvfp4_default-kv_fp8_cast",
        "configs/ptq/presets/model/nvfp4_awq_lite",
        "configs/ptq/presets/model/int4_awq",
        "configs/ptq/presets/model/int8_smoothquant",
        "configs/ptq/presets/model/w4a8_awq_beta",
        "configs/ptq/presets/model/int8",
    ];
    let mut candidates: Vec<Value> = recipes.iter().map(|name| json!(name)).collect();
    candidates.push(json!(recipe(home.path(), "whole", &[])));
    let call = submit(home.path(), &candidates);
    let portfolio = call.json();
    let folder = |portfolio: &Value| home.path().join("runs").join(portfolio["run"].as_str().unwrap());
    let run = folder(&portfolio);
    assert_eq!(attempts_with(&run, "calibrate"), 1, "one forward pass for all");
    let store = home.path().join("runs/.store");
    let count = |wanted: &str| artifacts(&store).iter().filter(|path| step(path) == wanted).count();
    let before = (count("layer"), count("evaluation"), artifacts(&store).len());
    // Layers that two candidates have in common are there once: what is only copied, at least.
    let layers = before.0;
    assert!(layers < recipes.len() * 10, "{layers} pieces of {} candidates are distinct", recipes.len());

    // Again: nothing is done.
    let begun = Instant::now();
    submit(home.path(), &candidates).assert_code(call.code);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());

    // One more that leaves the linears of one layer as they are.
    candidates.push(json!(recipe(home.path(), "but-layer-3", &["*layers.3.*"])));
    let portfolio = submit(home.path(), &candidates).json();
    let run = folder(&portfolio);
    assert_eq!(attempts_with(&run, "calibrate"), 0, "all statistics are there");
    let after = (count("layer"), count("evaluation"), artifacts(&store).len());
    assert_eq!(after, (before.0 + 1, before.1 + 1, before.2 + 2), "one layer is made, and measured");
}
