//! Measurements and the store: nothing is measured or tokenized twice, and what was stopped goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use qlaunch_tests::places::{example_model, tiny_llama};
use qlaunch_tests::stored::{ahead, artifacts, phases, step};
use qlaunch_tests::worker_job::{WorkerJob, outcome};
use serde_json::{Value, json};

const RECIPE: &str = "general/ptq/nvfp4_default-kv_fp8";

fn of_step<'s>(store: &Path, wanted: &'s str) -> impl Iterator<Item = PathBuf> + use<'s> {
    artifacts(store).into_iter().filter(move |artifact| step(artifact) == wanted)
}

fn figures(attempt: &Path) -> Value {
    let told = outcome(attempt).unwrap();
    assert!(told["evaluation"]["perplexity"].is_f64(), "{told:#}");
    told["evaluation"].clone()
}

#[test]
fn what_was_measured_is_not_measured_again() {
    for (model, flags) in [(tiny_llama(), &[][..]), (example_model("tiny-qwen3-moe"), &["--ranks", "2"])] {
        let work = tempfile::tempdir().unwrap();
        let store = work.path().join("store");
        let expected = figures(&WorkerJob::new(&model, RECIPE).run(flags));
        let mut job = WorkerJob::with_store(&model, RECIPE, Some(&store));
        let cold = job.run(flags);
        assert_eq!(figures(&cold), expected, "as without a store");
        assert_eq!(of_step(&store, "evaluation").count(), 1);
        let warm = job.run(&[]);
        assert_eq!(figures(&warm), expected);
        let own = phases(&warm);
        assert!(!own.iter().any(|phase| phase == "evaluate" || phase == "reference"), "{own:?}");
        // Other tokens are other figures.
        let mut job = job.changed(|spec| spec["evaluate"]["tokens"]["samples"] = json!(9));
        assert_ne!(figures(&job.run(&[])), expected);
        assert_eq!(of_step(&store, "evaluation").count(), 2);
        // Figures whose bytes changed are made again.
        for artifact in of_step(&store, "evaluation") {
            let file = artifact.join("evaluation.bin");
            let mut bytes = fs::read(&file).unwrap();
            bytes[3] ^= 1;
            fs::remove_file(&file).unwrap();
            fs::write(&file, bytes).unwrap();
        }
        let mut job = job.changed(|spec| spec["evaluate"]["tokens"]["samples"] = json!(10));
        let healed = job.run(&[]);
        assert_eq!(figures(&healed), expected);
        assert!(phases(&healed).contains(&"evaluate".to_owned()));
    }
}

/// A baseline leaves its final hidden states for the candidates, measured now or before.
#[test]
fn a_reference_is_handed_out_again() {
    let work = tempfile::tempdir().unwrap();
    let store = work.path().join("store");
    let job = WorkerJob::with_store(&tiny_llama(), RECIPE, Some(&store));
    let mut job = job.changed(|spec| {
        spec["quantize"] = Value::Null;
        spec["evaluate"]["reference"] = json!("keep");
    });
    let cold = job.run(&[]);
    let warm = job.run(&[]);
    assert_eq!(figures(&warm), figures(&cold));
    assert!(!phases(&warm).contains(&"evaluate".to_owned()));
    let read = |attempt: &Path| fs::read(attempt.join("reference.safetensors")).unwrap();
    assert!(read(&cold) == read(&warm));
    // Without it the figures alone are not enough.
    for artifact in of_step(&store, "reference") {
        fs::remove_dir_all(artifact).unwrap();
    }
    let again = job.run(&[]);
    assert!(read(&again) == read(&warm) && phases(&again).contains(&"evaluate".to_owned()));
}

#[test]
fn a_text_is_tokenized_once() {
    let work = tempfile::tempdir().unwrap();
    let store = work.path().join("store");
    let text = work.path().join("text.txt");
    fs::write(&text, "The quick brown fox jumps over the lazy dog. ".repeat(60)).unwrap();
    let job = WorkerJob::with_store(&tiny_llama(), RECIPE, Some(&store));
    let mut job = job.changed(|spec| {
        spec["quantize"]["calibration"]["data"] = json!(text);
        spec["evaluate"]["tokens"]["data"] = json!(text);
    });
    let expected = figures(&job.run(&[]));
    let all: Vec<PathBuf> = of_step(&store, "tokens").collect();
    assert_eq!(all.len(), 2, "for calibration and for evaluation");
    for artifact in of_step(&store, "evaluation") {
        fs::remove_dir_all(artifact).unwrap();
    }
    assert_eq!(figures(&job.run(&[])), expected);
    assert_eq!(of_step(&store, "tokens").collect::<Vec<_>>(), all);
    fs::write(&text, "The quick brown fox jumps over the lazy cat. ".repeat(60)).unwrap();
    assert_ne!(figures(&job.run(&[])), expected);
    assert_eq!(of_step(&store, "tokens").count(), 4, "other text, other tokens");
}

/// SIGUSR2 while layers are measured: each attempt goes on behind the layers of those before, and a kill costs one layer; of
/// several ranks, behind the groups of batches that left the last of them.
#[test]
fn a_measurement_that_is_stopped_goes_on() {
    let two = &["--ranks", "2"][..];
    for (signal, code, flags) in [("USR2", Some(85), &[][..]), ("KILL", None, &[]), ("KILL", None, two)] {
        let work = tempfile::tempdir().unwrap();
        let store = work.path().join("store");
        let mut job = WorkerJob::with_store(&tiny_llama(), RECIPE, Some(&work.path().join("calm")));
        let expected = figures(&job.run(flags));
        let mut job = WorkerJob::with_store(&tiny_llama(), RECIPE, Some(&store));
        let mut left = Vec::new();
        let done = loop {
            let attempt = job.attempt();
            let mut child = job.start(&attempt, flags);
            let kept = |store: &Path| -> Vec<PathBuf> { of_step(store, "hidden").collect() };
            let mut told = left.len() >= 4;
            let mut before = None;
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                // Once it measures, and has kept what is behind a layer that it went through itself.
                let begun = attempt.join("events.jsonl").exists() && ahead(&attempt, "evaluate").is_some();
                if begun && !told {
                    let now = kept(&store);
                    let before = before.get_or_insert_with(|| now.clone());
                    if now != *before {
                        let pid = child.id().to_string();
                        std::process::Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
                        told = true;
                    }
                }
                std::thread::sleep(Duration::from_micros(200));
            };
            left.extend(ahead(&attempt, "evaluate"));
            if status.success() {
                break attempt;
            }
            assert_eq!(status.code(), code, "SIG{signal} {flags:?}");
        };
        assert!(left.len() > 1, "SIG{signal} {flags:?}: it was never stopped");
        assert!(left.is_sorted_by(|before, after| before > after), "each begins further ahead: {left:?}");
        assert_eq!(figures(&done), expected, "SIG{signal} {flags:?}");
        assert_eq!(of_step(&store, "hidden").count(), 0, "SIG{signal} {flags:?}: hidden states stay");
    }
}
