//! The store: what is made with it has the bytes of what is made without, whatever is killed, broken or there already.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qlaunch_tests::checkpoint::{looks_whole, read_file, read_folder};
use qlaunch_tests::places::{example_model, golden, read_json, tiny_llama};
use qlaunch_tests::programs::{finish, qlaunch};
use qlaunch_tests::random_model::Numbers;
use qlaunch_tests::stored::{ahead, artifacts, phases, step};
use qlaunch_tests::worker_job::{WorkerJob, files, outcome};
use serde_json::Value;

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
    let two = &["--ranks", "2"][..];
    let [small, large, behind] = RECIPES;
    for (recipe, flags) in [(small, &[][..]), (behind, &[]), (small, two), (large, two), (behind, two)] {
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
        let mut left = if full { 20 } else { 2 };
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

/// Several ranks go on where each of them was: behind a group of batches, a layer, or what came from the rank before.
#[test]
fn ranks_that_are_killed_while_they_calibrate_go_on() {
    for recipe in RECIPES {
        let work = tempfile::tempdir().unwrap();
        let (calm, rough) = (work.path().join("calm"), work.path().join("rough"));
        let flags = ["--ranks", "2"];
        let mut job = WorkerJob::with_store(&tiny_llama(), recipe, Some(&calm)).without_evaluation();
        let first = job.run(&flags);
        let expected = files(&first.join("checkpoint"));
        let whole = ahead(&first, "calibrate").unwrap();
        let mut job = WorkerJob::with_store(&tiny_llama(), recipe, Some(&rough)).without_evaluation();
        let (mut kills, mut left) = (0, Vec::new());
        let done = loop {
            let attempt = job.attempt();
            let mut child = job.start(&attempt, &flags);
            let (before, mut kept) = (artifacts(&rough), BTreeSet::new());
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                if kills < 3 && ahead(&attempt, "calibrate").is_some() {
                    // Once something of the way has been kept twice that was not there.
                    let is_new =
                        |artifact: &PathBuf| !before.contains(artifact) && step(artifact) == "hidden";
                    kept.extend(artifacts(&rough).into_iter().filter(is_new));
                    if kept.len() > 1 {
                        child.kill().unwrap();
                        kills += 1;
                    }
                }
                std::thread::sleep(Duration::from_micros(300));
            };
            left.extend(ahead(&attempt, "calibrate"));
            if status.success() {
                break attempt;
            }
        };
        assert!(kills > 0, "{recipe}: it was never killed");
        assert!(left.iter().any(|&left| left < whole), "{recipe}: it went on: {left:?} of {whole}");
        assert!(files(&done.join("checkpoint")) == expected, "{recipe}: other bytes");
        assert_eq!(artifacts(&rough).len(), artifacts(&calm).len(), "{recipe}: something stays");
    }
}

/// Two jobs on one store at the same time: of one recipe, and of two that have pieces in common.
#[test]
fn jobs_that_work_on_one_store_at_the_same_time_are_both_right() {
    let work = tempfile::tempdir().unwrap();
    let other = "general/ptq/nvfp4_mlp_only-kv_fp8";
    let alone = |recipe: &str| {
        let mut job = WorkerJob::new(&tiny_llama(), recipe).without_evaluation();
        content(&job.run(&[]).join("checkpoint"))
    };
    let expected = [alone(RECIPES[0]), alone(RECIPES[0]), alone(other)];
    let store = work.path().join("store");
    let mut jobs = [RECIPES[0], RECIPES[0], other]
        .map(|recipe| WorkerJob::with_store(&tiny_llama(), recipe, Some(&store)).without_evaluation());
    let mut running: Vec<_> = jobs
        .iter_mut()
        .map(|job| {
            let attempt = job.attempt();
            (job.start(&attempt, &[]), attempt)
        })
        .collect();
    for ((child, attempt), expected) in running.iter_mut().zip(&expected) {
        let status = child.wait().unwrap();
        let log = fs::read_to_string(attempt.join("log")).unwrap_or_default();
        assert!(status.success(), "{log}");
        assert!(content(&attempt.join("checkpoint")) == *expected);
    }
    assert_eq!(fs::read_dir(store.join("leases")).unwrap().count(), 0, "leases are given back");
    assert_eq!(fs::read_dir(store.join("drafts")).unwrap().count(), 0, "drafts are taken away");
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

/// A number bumped by hand stands for the code of each step, so that a store does not give out what older code made. This
/// fails where the code makes other bytes and the number is the old one. Inputs are chosen before which nothing is
/// computed by functions that differ between C libraries.
#[test]
fn steps_that_make_other_bytes_have_another_code_version() {
    let work = tempfile::tempdir().unwrap();
    let (mut digests, model) = (serde_json::Map::new(), tiny_llama());
    for (recipe, kind, about, tensors) in [
        (
            "general/ptq/nvfp4_weight_only-kv_fp16",
            "layer",
            "layer 3 of",
            &["model.layers.3.self_attn.o_proj.weight", "model.layers.3.mlp.down_proj.weight_scale"][..],
        ),
        (
            "configs/ptq/presets/model/nvfp4_awq_lite",
            "statistics",
            "gram of the attention of layer 0 of",
            &["model.layers.0.self_attn.q_proj.gram"],
        ),
        (
            "configs/ptq/presets/model/nvfp4_awq_lite",
            "statistics",
            "channels of the attention of layer 0 of",
            &["model.layers.0.self_attn.q_proj.amax", "model.layers.0.self_attn.q_proj.mean"],
        ),
    ] {
        let store = work.path().join(recipe.replace('/', "-"));
        let mut job = WorkerJob::with_store(&model, recipe, Some(&store)).without_evaluation().on("portable");
        job.run(&[]);
        let artifact = find(&store, about);
        let code = read_json(&artifact.join("manifest.json"))["origin"]["code"].clone();
        let found = read_file(&first_file(&artifact));
        for name in tensors {
            let digest = found.get(*name).unwrap_or_else(|| panic!("{about} has no `{name}`")).digest();
            digests.insert(format!("{kind} {code}: {name}"), digest.into());
        }
    }
    let path = golden("store/code-versions.json");
    let text = format!("{:#}\n", Value::Object(digests.clone()));
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&path, text).unwrap();
        return;
    }
    let known = read_json(&path);
    for (what, digest) in &digests {
        assert_eq!(
            known.get(what),
            Some(digest),
            "`{what}` is made otherwise than before: raise the step's number in shared/src/store/key.rs, then run this \
             test with UPDATE_GOLDENS=1"
        );
    }
}
