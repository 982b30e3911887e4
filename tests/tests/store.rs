//! The store: what is made with it has the bytes of what is made without, whatever is killed, broken or there already.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qlaunch_tests::checkpoint::{looks_whole, read_folder};
use qlaunch_tests::places::{calibration_ids, evaluation_ids, example_model, read_json, tiny_llama};
use qlaunch_tests::programs::{Call, finish, qlaunch};
use qlaunch_tests::random_model::Numbers;
use qlaunch_tests::worker_job::{WorkerJob, files, outcome};
use serde_json::{Value, json};

/// Small sums, large sums, and layers behind quantized ones.
const RECIPES: [&str; 3] = [
    "general/ptq/nvfp4_default-kv_fp8",
    "configs/ptq/presets/model/nvfp4_awq_lite",
    "general/ptq/nvfp4_default-kv_none-gptq",
];

/// Every tensor of a checkpoint by name and digest, and what is told beside it.
fn content(checkpoint: &Path) -> (BTreeMap<String, String>, Value) {
    let tensors = read_folder(checkpoint);
    let tensors = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.digest())).collect();
    let mut quality = read_json(&checkpoint.join("quality.json"));
    // Headers of files count into the size.
    quality["totals"] = Value::Null;
    (tensors, quality)
}

/// Phases of an attempt, in order.
fn phases(attempt: &Path) -> Vec<String> {
    let told = outcome(attempt).unwrap();
    let phases = told["phases"].as_array().unwrap();
    phases.iter().map(|phase| phase["phase"].as_str().unwrap().to_owned()).collect()
}

/// Folders of all artifacts of a store.
fn artifacts(store: &Path) -> Vec<PathBuf> {
    let list = |folder: &Path| -> Vec<PathBuf> {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(folder).map_or(Vec::new(), |all| all.flatten().map(|entry| entry.path()).collect());
        entries.sort();
        entries
    };
    list(&store.join("objects")).iter().flat_map(|group| list(group)).collect()
}

/// What an artifact was made by: `layer`, `statistics`, ….
fn step(artifact: &Path) -> String {
    read_json(&artifact.join("manifest.json"))["origin"]["step"].as_str().unwrap().to_owned()
}

fn same_with_and_without(model: &Path, recipe: &str) {
    let mut job = WorkerJob::new(model, recipe);
    let expected = content(&job.run(&[]).join("checkpoint"));
    let work = tempfile::tempdir().unwrap();
    let (one, two) = (work.path().join("one"), work.path().join("two"));
    let mut job = WorkerJob::with_store(model, recipe, Some(&one));
    let cold = job.run(&[]);
    assert_eq!(content(&cold.join("checkpoint")), expected, "{recipe}");
    assert!(phases(&cold).contains(&"calibrate".to_owned()));
    let warm = job.run(&[]);
    assert_eq!(files(&warm.join("checkpoint")), files(&cold.join("checkpoint")), "{recipe}");
    assert!(!phases(&warm).contains(&"calibrate".to_owned()), "what is there is not observed again");
    assert!(!artifacts(&one).iter().any(|artifact| step(artifact) == "hidden"), "hidden states stay");
    // Ranks put the same artifacts into a store of their own.
    let mut job = WorkerJob::with_store(model, recipe, Some(&two));
    let ranks = job.run(&["--ranks", "2"]);
    assert_eq!(files(&ranks.join("checkpoint")), files(&cold.join("checkpoint")), "{recipe}");
    let names = |store: &Path| -> Vec<_> {
        artifacts(store).iter().map(|path| path.file_name().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&two), names(&one), "{recipe}: other keys");
}

#[test]
fn a_dense_model_comes_out_the_same_with_and_without_a_store() {
    for recipe in RECIPES {
        same_with_and_without(&tiny_llama(), recipe);
    }
}

#[test]
fn a_mixture_of_experts_comes_out_the_same_with_and_without_a_store() {
    for recipe in RECIPES {
        same_with_and_without(&example_model("tiny-qwen3-moe"), recipe);
    }
}

/// Starts attempts that are killed, by what `kill` says of the store and the time, until one ends by itself.
fn survive(
    job: &mut WorkerJob,
    flags: &[&str],
    store: &Path,
    mut kill: impl FnMut(usize, Duration) -> bool,
) -> PathBuf {
    loop {
        let attempt = job.attempt();
        let (mut child, begun) = (job.start(&attempt, flags), Instant::now());
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if kill(artifacts(store).len(), begun.elapsed()) {
                // With ranks: those that it started end with it.
                child.kill().unwrap();
                break child.wait().unwrap();
            }
            std::thread::sleep(Duration::from_micros(500));
        };
        if status.success() {
            return attempt;
        }
        let log = fs::read_to_string(attempt.join("log")).unwrap_or_default();
        assert_eq!(status.code(), None, "it was killed, and did not fail:\n{log}");
        assert!(!looks_whole(&attempt.join("checkpoint")) || outcome(&attempt).is_none());
    }
}

#[test]
fn a_job_that_is_killed_goes_on_from_what_it_has_kept() {
    let full = std::env::var("QLAUNCH_FULL").is_ok_and(|value| value == "1");
    let mut numbers = Numbers::new(11);
    for (recipe, flags) in [(RECIPES[0], &[][..]), (RECIPES[2], &[]), (RECIPES[1], &["--ranks", "2"])] {
        let work = tempfile::tempdir().unwrap();
        let (calm, rough) = (work.path().join("calm"), work.path().join("rough"));
        let mut job = WorkerJob::with_store(&tiny_llama(), recipe, Some(&calm)).without_evaluation();
        let begun = Instant::now();
        let expected = files(&job.run(flags).join("checkpoint"));
        let (long, count) = (begun.elapsed(), artifacts(&calm).len());
        let mut job = WorkerJob::with_store(&tiny_llama(), recipe, Some(&rough)).without_evaluation();
        // First as often as artifacts appear, then at any moment.
        let every = if full { 1 } else { count / 4 };
        let mut next = 1;
        let mut left = if full { 34 } else { 2 };
        let mut after = None;
        let done = survive(&mut job, flags, &rough, |there, ran| {
            if next <= count && there >= next {
                next = there + every;
                return true;
            }
            let moment = *after.get_or_insert_with(|| long.mul_f64(numbers.even()));
            if left > 0 && ran >= moment {
                (left, after) = (left - 1, None);
                return true;
            }
            false
        });
        assert!(files(&done.join("checkpoint")) == expected, "{recipe}: other bytes after kills");
        let other: Vec<PathBuf> =
            artifacts(&rough).into_iter().filter(|path| step(path) != "hidden").collect();
        assert_eq!(other.len(), count, "{recipe}: other artifacts");
    }
}

/// SIGUSR2 lets the layer at work be kept, SIGTERM does not; neither makes any other bytes.
#[test]
fn a_job_that_is_told_to_stop_ends_resumable_and_loses_a_layer_at_most() {
    for (signal, recipe) in [("USR2", RECIPES[0]), ("TERM", RECIPES[0]), ("USR2", RECIPES[2])] {
        let work = tempfile::tempdir().unwrap();
        let (calm, rough) = (work.path().join("calm"), work.path().join("rough"));
        let mut job = WorkerJob::with_store(&tiny_llama(), recipe, Some(&calm)).without_evaluation();
        let expected = files(&job.run(&[]).join("checkpoint"));
        let mut job = WorkerJob::with_store(&tiny_llama(), recipe, Some(&rough)).without_evaluation();
        let mut stops = 0;
        let done = loop {
            let attempt = job.attempt();
            let mut child = job.start(&attempt, &[]);
            let before = artifacts(&rough).len();
            let mut told = false;
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                // Once it has kept something, at most four times.
                if !told && stops < 4 && artifacts(&rough).len() > before {
                    let pid = child.id().to_string();
                    std::process::Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
                    told = true;
                }
                std::thread::sleep(Duration::from_micros(300));
            };
            if status.success() {
                break attempt;
            }
            assert_eq!(status.code(), Some(85), "SIG{signal}");
            assert_eq!(outcome(&attempt).unwrap()["status"], "interrupted");
            assert!(!attempt.join("checkpoint").exists(), "nothing half-made stays");
            stops += 1;
        };
        assert!(stops > 0, "SIG{signal}: it was never stopped");
        assert!(files(&done.join("checkpoint")) == expected, "SIG{signal}: other bytes");
        assert_eq!(artifacts(&rough).len(), artifacts(&calm).len());
    }
}

#[test]
fn what_is_broken_is_set_aside_and_made_again() {
    let work = tempfile::tempdir().unwrap();
    let store = work.path().join("store");
    let mut job = WorkerJob::with_store(&tiny_llama(), RECIPES[0], Some(&store)).without_evaluation();
    let expected = files(&job.run(&[]).join("checkpoint"));
    let damages: [fn(&Path); 4] = [
        |artifact| {
            let file = first_file(artifact);
            let mut bytes = fs::read(&file).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::remove_file(&file).unwrap();
            fs::write(file, bytes).unwrap();
        },
        |artifact| {
            let file = first_file(artifact);
            let bytes = fs::read(&file).unwrap();
            fs::remove_file(&file).unwrap();
            fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
        },
        |artifact| fs::write(artifact.join("manifest.json"), "{").unwrap(),
        |artifact| fs::remove_file(first_file(artifact)).unwrap(),
    ];
    for (nth, damage) in damages.iter().enumerate() {
        // A layer and its statistics, so that it is calibrated again.
        let layer = find(&store, &format!("layer {nth} of"));
        let statistics = find(&store, &format!("magnitudes of the feed-forward of layer {nth} of"));
        damage(&layer);
        damage(&statistics);
        let attempt = job.run(&[]);
        assert!(files(&attempt.join("checkpoint")) == expected, "damage {nth}");
        let events = fs::read_to_string(attempt.join("events.jsonl")).unwrap();
        assert!(events.contains("was broken and is made again"), "damage {nth} is told");
        assert!(fs::read_dir(store.join("broken")).unwrap().count() > nth);
    }
    // What is nobody's artifact is left alone.
    fs::write(store.join("objects/stranger"), "x").unwrap();
    fs::create_dir_all(store.join("objects/ab/no-key")).unwrap();
    assert!(files(&job.run(&[]).join("checkpoint")) == expected);
    assert!(store.join("objects/stranger").exists() && store.join("objects/ab/no-key").exists());
}

/// The artifact that is told to be this.
fn find(store: &Path, about: &str) -> PathBuf {
    let is_it = |artifact: &PathBuf| {
        read_json(&artifact.join("manifest.json"))["about"].as_str().unwrap().starts_with(about)
    };
    artifacts(store).into_iter().find(is_it).unwrap_or_else(|| panic!("no artifact is `{about}`"))
}

fn first_file(artifact: &Path) -> PathBuf {
    let mut names: Vec<PathBuf> =
        fs::read_dir(artifact).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    names.remove(0)
}

#[test]
fn a_store_that_is_no_folder_is_refused_by_name() {
    let work = tempfile::tempdir().unwrap();
    let store = work.path().join("store");
    fs::write(&store, "a file").unwrap();
    let mut job = WorkerJob::with_store(&tiny_llama(), RECIPES[0], Some(&store)).without_evaluation();
    let attempt = job.attempt();
    let call = finish(job.command(&attempt, &[]));
    assert_ne!(call.code, 0);
    let told = outcome(&attempt).unwrap();
    assert!(told["error"].to_string().contains("store"), "{told:#}");
}

/// Where the file system has no links between two places, files are copied.
#[test]
fn a_store_on_another_file_system_is_copied_from() {
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut job = WorkerJob::with_store(&tiny_llama(), RECIPES[0], Some(other.path())).without_evaluation();
    let far = content(&job.run(&[]).join("checkpoint"));
    let mut job = WorkerJob::new(&tiny_llama(), RECIPES[0]).without_evaluation();
    assert_eq!(far, content(&job.run(&[]).join("checkpoint")));
}

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
    let call = submit(home.path(), &[json!("general/ptq/fp8_default-kv_fp8"), json!("general/ptq/nvfp4_mlp_only-kv_fp8")]);
    let run = home.path().join("runs").join(call.json()["run"].as_str().unwrap());
    let ask = |arguments: &[&str]| {
        let mut command = qlaunch(home.path());
        command.args(arguments).args(["--format", "json"]).current_dir(home.path());
        finish(command)
    };
    let listed = ask(&["store", "ls"]).json();
    let all = listed["artifacts"].as_array().unwrap();
    // 2 candidates: embedding and head are the same, layers are not.
    let of = |step: &str| all.iter().filter(|artifact| artifact["manifest"]["origin"]["step"] == step).count();
    assert_eq!(of("layer"), 8 + 8 + 2);
    let shared = all.iter().filter(|artifact| artifact["checkpoints"] == 2).count();
    assert_eq!(shared, 2, "what is only copied is in both checkpoints");
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
    assert_eq!(artifacts(&home.path().join("runs/.store")).len(), 18);
    let checkpoint_text = checkpoint.display().to_string();
    ask(&["verify", &checkpoint_text]).assert_code(0);
    assert!(files(&checkpoint) == weights);

    // Without the run nothing is of use.
    fs::remove_dir_all(&run).unwrap();
    ask(&["store", "gc"]).assert_code(0);
    assert!(artifacts(&home.path().join("runs/.store")).is_empty());
}

#[test]
fn a_checkpoint_that_was_tampered_with_is_found_out() {
    let work = tempfile::tempdir().unwrap();
    let mut job = WorkerJob::with_store(&tiny_llama(), RECIPES[0], Some(&work.path().join("store")));
    let checkpoint = job.run(&[]).join("checkpoint");
    let verify = || {
        let mut command = qlaunch(work.path());
        command.args(["verify", "--format", "json"]).arg(&checkpoint);
        finish(command)
    };
    verify().assert_code(0);
    let file = checkpoint.join("model-00004-of-00010.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::remove_file(&file).unwrap();
    fs::write(&file, bytes).unwrap();
    let call = verify();
    call.assert_code(10);
    let told: Value = serde_json::from_str(&call.stdout).unwrap();
    assert_eq!(told["damages"][0]["piece"], "layer 2", "{told:#}");
    fs::remove_file(checkpoint.join("build.json")).unwrap();
    verify().assert_refused(3, &["does not say what it was put together from"]);
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
    let before = artifacts(&store).len();
    // Layers that two candidates have in common are there once: what is only copied, at least.
    let layers = artifacts(&store).iter().filter(|path| step(path) == "layer").count();
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
    assert_eq!(artifacts(&store).len(), before + 1, "one layer is made, and nothing else");
}
