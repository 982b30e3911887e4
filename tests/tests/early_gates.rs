//! Candidates that a gate ends while they run: what is not a number, what cannot become acceptable any more, what is not what was
//! planned. Each says so, is not tried again, and stops nobody else.

use std::fs;
use std::path::{Path, PathBuf};

use qlaunch_tests::broken::{good_model, model_with};
use qlaunch_tests::places::{calibration_ids, evaluation_ids, tiny_llama};
use qlaunch_tests::programs::{Call, finish, qlaunch, row};
use qlaunch_tests::stored::phases;
use qlaunch_tests::worker_job::{WorkerJob, outcome};
use serde_json::{Value, json};

const FP8: &str = "fp8_default-kv_fp8";
const NVFP4: &str = "nvfp4_default-kv_fp8";

/// A sweep in a folder of its own.
struct Project(tempfile::TempDir);

impl Project {
    /// FP8 and NVFP4 of a model on so short windows that each is a small part of the whole.
    fn new(model: &Path) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        let text = json!({
            "version": 1, "name": "early", "model": model, "objective": "memory",
            "acceptance": {"perplexity": {"within": "3%", "of": "bf16"}}, "early_stop": 1,
            "calibration": {"data": calibration_ids(), "samples": 18, "seq_len": 48, "batch_size": 8},
            "evaluate": {"data": evaluation_ids(), "samples": 160, "seq_len": 32, "batch_size": 16},
            "baselines": ["bf16"],
            "candidates": [format!("general/ptq/{FP8}"), format!("general/ptq/{NVFP4}")],
        });
        project.write(&text);
        project
    }

    fn write(&self, sweep: &Value) {
        fs::write(self.0.path().join("sweep.yaml"), sweep.to_string()).unwrap();
    }

    fn change(&self, change: impl FnOnce(&mut Value)) {
        let text = fs::read(self.0.path().join("sweep.yaml")).unwrap();
        let mut sweep = serde_json::from_slice(&text).unwrap();
        change(&mut sweep);
        self.write(&sweep);
    }

    fn run(&self, arguments: &[&str]) -> Call {
        let mut command = qlaunch(self.0.path());
        command.args(arguments).args(["--format", "json"]).current_dir(self.0.path());
        finish(command)
    }

    fn submit(&self) -> Call {
        self.run(&["submit", "--cluster", "local", "--yes", "sweep.yaml"])
    }

    fn folder(&self) -> PathBuf {
        let entries = fs::read_dir(self.0.path().join("runs")).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| entry.path()).find(|path| path.join("journal.jsonl").exists()).unwrap()
    }

    fn attempts(&self, job: &str) -> usize {
        fs::read_dir(self.folder().join(job).join("attempts")).unwrap().count()
    }
}

#[test]
fn a_candidate_that_cannot_become_acceptable_any_more_is_ended_and_the_others_go_on() {
    let project = Project::new(&tiny_llama());
    let call = project.submit();
    let portfolio = call.json();
    assert_eq!(row(&portfolio, FP8)["decision"]["is"], "best", "{portfolio:#}");
    let hopeless = row(&portfolio, NVFP4);
    assert_eq!(hopeless["decision"]["is"], "reject", "{hopeless:#}");
    let reason = hopeless["decision"]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("ended early: the perplexity is at least") && reason.contains("of 160"),
        "{reason}"
    );
    assert!(hopeless["perplexity"].is_null() && hopeless["bytes"].is_u64(), "{hopeless:#}");
    assert!(Path::new(hopeless["checkpoint"].as_str().unwrap()).join("config.json").exists(), "{hopeless:#}");
    assert!(call.stderr.contains("ended early"), "{}", call.stderr);
    let status = project.run(&["status"]).json();
    assert_eq!(status["jobs"][2]["state"], "rejected", "{status:#}");
    assert!(status["jobs"][2]["note"].as_str().unwrap().contains("after window"), "{status:#}");

    // Nothing is tried again, since it would end the same way.
    assert_eq!(project.submit().json(), portfolio);
    project.run(&["rerun", "--failed"]).assert_code(0);
    assert_eq!(project.attempts(NVFP4), 1);

    // A rule that allows more asks for the figure again, of this one alone.
    project.change(|sweep| sweep["early_stop"] = json!("never"));
    let measured = project.submit().json();
    let perplexity = |name: &str| row(&measured, name)["perplexity"].as_f64().unwrap();
    assert!(perplexity(NVFP4) > 1.03 * perplexity("bf16"), "what was ended was hopeless: {measured:#}");
    assert_eq!((project.attempts("bf16"), project.attempts(FP8), project.attempts(NVFP4)), (1, 1, 2));
    assert_eq!(row(&measured, NVFP4)["decision"]["reason"], "Δ over 3%");
}

#[test]
fn a_gate_of_the_sweep_that_is_broken_early_fails_and_says_so_in_the_exit_code() {
    let project = Project::new(&tiny_llama());
    project.change(|sweep| {
        sweep["acceptance"] = json!({"ratio": {"max": 1}});
        sweep["gates"] = json!({"perplexity": {"max": 20}});
    });
    let call = project.submit();
    call.assert_code(10);
    let portfolio: Value = serde_json::from_str(&call.stdout).unwrap();
    for name in [FP8, NVFP4] {
        let row = row(&portfolio, name);
        let failed = row["gates"].as_array().unwrap().iter().find(|gate| gate["verdict"] == "fail").unwrap();
        assert_eq!(failed["gate"], "perplexity", "{row:#}");
        assert!(failed["evidence"][0].as_str().unwrap().contains("beyond 20.0000"), "{row:#}");
    }
}

/// A norm of the second layer that is not a number: no weight that is quantized, so only what flows through the model shows it.
fn model_that_breaks(folder: &Path) {
    model_with(folder, |_| ());
    let path = folder.join("model.safetensors");
    let mut tensors = qlaunch_tests::random_model::tensors(&qlaunch_tests::broken::specimen());
    let norm =
        tensors.iter_mut().find(|tensor| tensor.name == "model.layers.1.input_layernorm.weight").unwrap();
    let size = norm.bytes.len() / norm.shape.iter().product::<usize>();
    let nan: &[u8] = if size == 2 { &[0xc0, 0x7f] } else { &[0, 0, 0xc0, 0x7f] };
    norm.bytes[..size].copy_from_slice(nan);
    qlaunch_tests::checkpoint::write_safetensors(&path, &tensors);
}

#[test]
fn what_is_not_a_number_ends_a_measurement_behind_its_layer() {
    let work = tempfile::tempdir().unwrap();
    let (good, broken) = (work.path().join("good"), work.path().join("broken"));
    good_model(&good);
    model_that_breaks(&broken);
    let evaluate = |model: &Path, more: &[&str]| {
        let data = calibration_ids().display().to_string();
        let model = model.display().to_string();
        qlaunch_tests::programs::run(
            [&["eval", &model, "--data", &data, "--seq-len", "64", "--samples", "3"], more].concat(),
        )
    };
    evaluate(&good, &[]).assert_code(0);
    for ranks in ["1", "2"] {
        let call = evaluate(&broken, &["--ranks", ranks]);
        call.assert_code(10);
        assert!(call.stderr.contains("ended early: behind layer 2"), "{}", call.stderr);
        assert!(call.stderr.contains("in window 1 first"), "{}", call.stderr);
    }
}

#[test]
fn a_recipe_that_reaches_other_modules_than_planned_ends_before_anything_is_calibrated() {
    let job = WorkerJob::new(&tiny_llama(), &format!("general/ptq/{FP8}"));
    let mut job = job.changed(|spec| {
        assert!(spec["quantize"]["assignment"].is_string(), "a plan names what it expects: {spec:#}");
        spec["quantize"]["assignment"] = json!("00");
    });
    let attempt = job.attempt();
    finish(job.command(&attempt, &[])).assert_code(10);
    let told = outcome(&attempt).unwrap();
    assert_eq!((&told["status"], &told["error"]["kind"]), (&json!("failed"), &json!("gate")), "{told:#}");
    let gate = told["gates"].as_array().unwrap().last().unwrap();
    assert_eq!((&gate["gate"], &gate["verdict"]), (&json!("coverage"), &json!("fail")), "{told:#}");
    assert!(!phases(&attempt).iter().any(|phase| phase == "calibrate"), "{told:#}");
}
