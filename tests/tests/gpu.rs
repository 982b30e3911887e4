//! Jobs on a GPU: the same weights as on the CPU, the same bytes for any number of ranks, and clear words where a GPU cannot be
//! had. Without one, the emulated GPU of `worker/kernels/emulator` plays its part.

use std::path::{Path, PathBuf};
use std::process::Command;

use qlaunch_tests::checkpoint::read_folder;
use qlaunch_tests::places::{example_model, existing, tiny_llama};
use qlaunch_tests::programs::{Call, finish, program};
use qlaunch_tests::worker_job::{WorkerJob, files, outcome};
use serde_json::Value;

const RECIPE: &str = "general/ptq/nvfp4_default-kv_fp8";
/// How far a scale that comes from an activation may be from the CPU's: products are summed in another order, and rounded to
/// bf16 behind each layer.
const TOLERANCE: f32 = 0.02;

/// The folder of the emulated GPU; none where this host has a real one.
fn emulated() -> Option<PathBuf> {
    let mut probe = Command::new(program("qlaunch-worker"));
    let told = finish({
        probe.arg("probe");
        probe
    })
    .json();
    if told["device"]["auto"] != "cpu" {
        return None;
    }
    assert!(std::env::var_os("QLAUNCH_REQUIRE_GPU").is_none(), "{told:#}");
    let folder = program("qlaunch-worker").parent().unwrap().join("emulated-gpu");
    let mut build = Command::new(existing("worker/kernels/emulator/build.sh"));
    build.arg(&folder);
    finish(build).assert_code(0);
    Some(folder)
}

/// A worker's command with so many GPUs of a kind.
fn with_gpus(mut command: Command, gpus: &str, capability: &str) -> Command {
    if let Some(folder) = emulated() {
        command.env("LD_LIBRARY_PATH", folder);
        command.env("EMULATED_GPUS", gpus).env("EMULATED_CAPABILITY", capability);
    }
    command
}

fn run(job: &mut WorkerJob, flags: &[&str]) -> PathBuf {
    let attempt = job.attempt();
    finish(with_gpus(job.command(&attempt, flags), "1", "90")).assert_code(0);
    attempt
}

/// Small, because an emulated GPU is slow.
fn job(model: &Path, recipe: &str) -> WorkerJob {
    WorkerJob::new(model, recipe).with_samples(3, 2)
}

fn made_on(attempt: &Path) -> String {
    outcome(attempt).unwrap()["numeric_path"].as_str().unwrap().to_owned()
}

/// Weights and weight scales are equal; scales of activations and figures are close.
fn same_weights_as_on_the_cpu(model: &Path, recipe: &str) {
    let mut job = job(model, recipe);
    let (cpu, gpu) = (job.attempt(), run(&mut job, &["--device", "cuda"]));
    finish(job.command(&cpu, &["--device", "cpu"])).assert_code(0);
    assert!(made_on(&gpu).starts_with("cuda-sm") && !made_on(&cpu).starts_with("cuda"), "{}", made_on(&gpu));
    let (expected, found) = (read_folder(&cpu.join("checkpoint")), read_folder(&gpu.join("checkpoint")));
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    for (name, tensor) in &expected {
        if name.ends_with("input_scale") || name.ends_with("k_scale") || name.ends_with("v_scale") {
            let (a, b) = (tensor.scalar(), found[name].scalar());
            assert!((a - b).abs() <= TOLERANCE * a, "{recipe} {name}: {b}, the CPU has {a}");
        } else {
            assert_eq!(tensor.digest(), found[name].digest(), "{recipe} {name}");
        }
    }
    let perplexity = |attempt: &Path| outcome(attempt).unwrap()["evaluation"]["perplexity"].as_f64().unwrap();
    let (a, b) = (perplexity(&cpu), perplexity(&gpu));
    assert!((a - b).abs() <= 0.02 * a, "{recipe}: perplexity {b}, the CPU has {a}");
}

#[test]
fn a_gpu_makes_the_weights_of_the_cpu() {
    for recipe in [RECIPE, "general/ptq/fp8_default-kv_fp8"] {
        same_weights_as_on_the_cpu(&tiny_llama(), recipe);
    }
}

#[test]
fn a_gpu_makes_the_weights_of_a_mixture_of_experts() {
    same_weights_as_on_the_cpu(&example_model("tiny-qwen3-moe"), RECIPE);
}

#[test]
fn ranks_that_share_a_gpu_make_what_one_makes() {
    let mut job = job(&tiny_llama(), "configs/ptq/presets/model/nvfp4_awq_lite");
    let alone = run(&mut job, &["--device", "cuda"]);
    let shared = run(&mut job, &["--device", "cuda:0", "--ranks", "2"]);
    assert_eq!(files(&alone.join("checkpoint")), files(&shared.join("checkpoint")));
    assert_eq!(outcome(&alone).unwrap()["evaluation"], outcome(&shared).unwrap()["evaluation"]);
}

#[test]
fn a_job_that_does_not_fit_is_refused_before_it_begins() {
    if emulated().is_none() {
        return;
    }
    let mut job = job(&tiny_llama(), RECIPE);
    let attempt = job.attempt();
    let mut command = with_gpus(job.command(&attempt, &["--device", "cuda"]), "1", "90");
    command.env("EMULATED_MEMORY", "200000000");
    finish(command).assert_refused(3, &["the GPU has 0.17 GB free, and this pass needs 0.", "hidden states"]);
    assert!(!attempt.join("checkpoint").exists());
}

#[test]
fn a_run_that_began_on_one_kind_of_gpu_refuses_another() {
    if emulated().is_none() {
        return;
    }
    let mut job = job(&tiny_llama(), RECIPE).without_evaluation().on("cuda-sm90");
    let refused = |job: &mut WorkerJob, capability: &str| -> Call {
        let attempt = job.attempt();
        finish(with_gpus(job.command(&attempt, &[]), "1", capability))
    };
    refused(&mut job, "80").assert_refused(3, &["`cuda-sm90`", "`cuda-sm80`"]);
    let attempt = job.attempt();
    // Without any GPU there is no way to go on either, whatever `auto` would do.
    finish(job.command(&attempt, &[])).assert_refused(3, &["no GPU can be used"]);
    refused(&mut job, "90").assert_code(0);
}

#[test]
fn a_gpu_that_cannot_be_had_is_told_and_auto_goes_on_with_the_cpu() {
    if emulated().is_none() {
        return;
    }
    let mut job = job(&tiny_llama(), RECIPE).without_evaluation();
    let try_on = |job: &mut WorkerJob, flags: &[&str], gpus: &str, capability: &str| -> (Call, PathBuf) {
        let attempt = job.attempt();
        (finish(with_gpus(job.command(&attempt, flags), gpus, capability)), attempt)
    };
    try_on(&mut job, &["--device", "cuda:2"], "2", "90").0.assert_refused(3, &["2 GPUs, which count from 0"]);
    try_on(&mut job, &["--device", "cuda"], "0", "90").0.assert_refused(3, &["the driver sees no GPU"]);
    try_on(&mut job, &["--device", "cuda"], "1", "75").0.assert_refused(3, &["compute capability 7.5"]);
    let (call, attempt) = try_on(&mut job, &["--device", "auto"], "1", "75");
    call.assert_code(0);
    let events = std::fs::read_to_string(attempt.join("events.jsonl")).unwrap();
    assert!(
        events.contains("the CPU does the work: GPU 0 (Emulated GPU) has compute capability 7.5"),
        "{events}"
    );
    assert!(!made_on(&attempt).starts_with("cuda"));
    // A GPU without cuBLASLt multiplies nothing.
    let alone = tempfile::tempdir().unwrap();
    let driver = "libcuda.so.1";
    std::fs::copy(emulated().unwrap().join(driver), alone.path().join(driver)).unwrap();
    let attempt = job.attempt();
    let mut command = job.command(&attempt, &["--device", "cuda"]);
    command.env("LD_LIBRARY_PATH", alone.path());
    finish(command).assert_refused(3, &["libcublasLt is not found"]);
}

#[test]
fn the_probe_says_what_auto_takes() {
    let Some(folder) = emulated() else { return };
    let mut command = Command::new(program("qlaunch-worker"));
    command.arg("probe").env("LD_LIBRARY_PATH", folder).env("EMULATED_GPUS", "2");
    let told: Value = finish(command).json();
    assert_eq!(told["device"]["auto"], "cuda:0", "{told:#}");
    assert!(told["device"]["why"].as_str().unwrap().contains("cuda-sm90"), "{told:#}");
    let uuids: Vec<&str> =
        told["devices"].as_array().unwrap().iter().map(|gpu| gpu["uuid"].as_str().unwrap()).collect();
    assert!(uuids.len() == 2 && uuids[0] != uuids[1], "{uuids:?}");
}
