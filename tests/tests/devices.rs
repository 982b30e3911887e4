//! One worker for nodes with and without GPUs: what it says of a driver that is missing, broken or fine.

use std::path::{Path, PathBuf};
use std::process::Command;

use qlaunch_tests::places::{existing, tiny_llama};
use qlaunch_tests::programs::{Call, finish, program, qlaunch};
use qlaunch_tests::worker_job::{WorkerJob, outcome};
use serde_json::Value;

const RECIPE: &str = "general/ptq/nvfp4_weight_only-kv_fp16";

/// Compiles a driver from C.
fn compile(folder: &Path, source: &Path) -> PathBuf {
    let out = folder.join("libcuda.so.1");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-pthread", "-o"]).arg(&out).arg(source);
    finish(command).assert_code(0);
    out
}

/// A driver that says no to everything.
fn refusing(folder: &Path, code: i32) -> PathBuf {
    let functions =
        ["cuDriverGetVersion", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute"];
    let mut text = format!(
        "int cuInit(unsigned flags) {{ return {code}; }}\nint cuDeviceTotalMem_v2() {{ return 1; }}\n"
    );
    text.extend(functions.map(|name| format!("int {name}() {{ return 1; }}\n")));
    let source = folder.join("refusing.c");
    std::fs::write(&source, text).unwrap();
    compile(folder, &source)
}

/// The worker where the system finds libraries in `folder` first.
fn probe(folder: &Path) -> Value {
    let mut command = Command::new(program("qlaunch-worker"));
    command.arg("probe").env("LD_LIBRARY_PATH", folder);
    finish(command).json()
}

fn library<'a>(probe: &'a Value, name: &str) -> &'a Value {
    probe["libraries"].as_array().unwrap().iter().find(|library| library["name"] == name).unwrap()
}

#[test]
fn the_worker_is_linked_with_no_library_of_cuda() {
    let mut command = Command::new("ldd");
    command.arg(program("qlaunch-worker"));
    let linked = finish(command);
    linked.assert_code(0);
    for name in ["libcuda", "libcublas", "libnccl", "libcudart", "libnvrtc"] {
        assert!(!linked.stdout.contains(name), "{}", linked.stdout);
    }
    assert!(linked.stdout.contains("libc.so"), "not what ldd says of a program: {}", linked.stdout);
}

#[test]
fn a_broken_driver_is_told_and_the_cpu_goes_on() {
    let work = tempfile::tempdir().unwrap();
    std::fs::write(work.path().join("libcuda.so.1"), "no library, whatever its name says").unwrap();
    let told = probe(work.path());
    assert_eq!(library(&told, "libcuda")["state"], "broken", "{told:#}");
    assert!(library(&told, "libcuda")["error"]["hint"].is_string());
    assert_eq!((&told["device"]["auto"], &told["driver"]), (&"cpu".into(), &Value::Null));
    assert!(!told["cpu"]["numeric_paths"].as_array().unwrap().is_empty());
    let mut job = WorkerJob::new(&tiny_llama(), RECIPE);
    let attempt = job.attempt();
    let run = |attempt: &Path, device: &str| -> Call {
        let mut command = job.command(attempt, &["--device", device]);
        command.env("LD_LIBRARY_PATH", work.path());
        finish(command)
    };
    run(&attempt, "auto").assert_code(0);
    let events = std::fs::read_to_string(attempt.join("events.jsonl")).unwrap();
    assert!(events.contains("the CPU does the work: libcuda cannot be loaded"), "{events}");
    run(&attempt.join("cuda"), "cuda").assert_refused(3, &["no GPU can be used", "libcuda"]);
    assert_eq!(outcome(&attempt.join("cuda")).unwrap()["status"], "failed");
    // Who asked for the CPU need not hear of GPUs.
    run(&attempt.join("cpu"), "cpu").assert_code(0);
    assert!(!std::fs::read_to_string(attempt.join("cpu/events.jsonl")).unwrap().contains("libcuda"));
}

#[test]
fn what_a_driver_refuses_is_told_in_words_with_a_remedy() {
    let work = tempfile::tempdir().unwrap();
    for (code, words) in [(803, "different versions"), (100, "sees no GPU"), (12345, "CUDA error 12345")] {
        let driver = refusing(work.path(), code);
        let told = probe(work.path());
        let cuda = library(&told, "libcuda");
        assert_eq!(cuda["state"], "broken");
        assert!(cuda["error"]["message"].as_str().unwrap().contains(words), "{cuda:#}");
        assert!(cuda["error"]["hint"].is_string(), "{cuda:#}");
        std::fs::remove_file(driver).unwrap();
    }
    // A driver of another time lacks what is needed.
    std::fs::write(work.path().join("old.c"), "int cuInit(unsigned f) { return 0; }\n").unwrap();
    compile(work.path(), &work.path().join("old.c"));
    let told = probe(work.path());
    assert!(
        library(&told, "libcuda")["error"]["message"].as_str().unwrap().contains("lacks `cuD"),
        "{told:#}"
    );
}

#[test]
fn a_driver_that_works_is_asked_for_its_gpus() {
    let work = tempfile::tempdir().unwrap();
    let driver = compile(work.path(), &existing("worker/src/comm/nccl/fake.c"));
    let told = probe(work.path());
    assert_eq!(library(&told, "libcuda")["state"], "found", "{told:#}");
    assert_eq!(library(&told, "libcuda")["path"], driver.display().to_string());
    assert_eq!(told["driver"]["cuda"], "12.8");
    let gpu = &told["devices"][0];
    assert_eq!((&gpu["name"], &gpu["capability"]), (&"Fake GPU".into(), &90.into()));
    assert!(gpu["free"].as_u64().unwrap() < gpu["memory"].as_u64().unwrap());
}

#[test]
fn the_doctor_tells_every_finding_with_a_verdict_and_a_remedy_where_one_is_needed() {
    let work = tempfile::tempdir().unwrap();
    refusing(work.path(), 999);
    let doctor = |format: &str| {
        let mut command = qlaunch(work.path());
        command.args(["doctor", "--format", format]).env("LD_LIBRARY_PATH", work.path());
        finish(command)
    };
    let told = doctor("json").json();
    assert_eq!(told["ok"], true, "{told:#}");
    let checks = told["checks"].as_array().unwrap();
    for name in [
        "worker",
        "processor",
        "memory",
        "libcuda",
        "libnccl",
        "recipes",
        "ssh",
        "docker",
        "sbatch",
        "runs",
        "cache",
    ] {
        assert!(checks.iter().any(|check| check["name"] == name), "no `{name}` in {told:#}");
    }
    for check in checks {
        assert_eq!(check["verdict"] != "ok", check["hint"].is_string(), "{check}");
    }
    let text = doctor("text").stdout;
    assert!(text.contains("the driver does not say why (CUDA error 999)"), "{text}");
    // Without a worker, nothing goes.
    let mut command = qlaunch(work.path());
    command.args(["doctor", "--format", "json"]).env("QLAUNCH_WORKER", "/gone");
    let call = finish(command);
    call.assert_code(3);
    assert!(call.stdout.contains("QLAUNCH_WORKER"), "{}", call.stdout);
}
