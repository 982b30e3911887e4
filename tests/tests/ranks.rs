//! Several processes that share a model's layers make what one process makes, and none outlives another.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use qlaunch_tests::checkpoint::looks_whole;
use qlaunch_tests::places::{example_model, tiny_llama};
use qlaunch_tests::programs::Quantize;
use qlaunch_tests::random_model::Numbers;
use qlaunch_tests::worker_job::{WorkerJob, files, outcome};
use serde_json::Value;

/// Within which all ranks must have ended after one of them was killed.
const SECONDS: Duration = Duration::from_secs(20);

/// Recipes of all three ways through a pipeline: small sums, large sums, and layers that are calibrated behind quantized
/// ones. The last two also quantize what only algorithms decide.
const RECIPES: [&str; 3] = [
    "general/ptq/nvfp4_default-kv_fp8",
    "configs/ptq/presets/model/nvfp4_awq_lite",
    "general/ptq/nvfp4_default-kv_none-gptq",
];

/// What must not depend on the number of ranks, of all that an outcome says.
fn figures(attempt: &Path) -> Value {
    let outcome = outcome(attempt).unwrap();
    assert_eq!(outcome["status"], "done", "{outcome:#}");
    let mut gates = outcome["gates"].clone();
    for gate in gates.as_array_mut().unwrap() {
        assert_ne!(gate["verdict"], "fail", "{gate:#}");
    }
    assert!(outcome["evaluation"]["kl_mean"].as_f64().unwrap() > 0.0);
    serde_json::json!([gates, outcome["evaluation"], outcome["calibration"], outcome["checkpoint"]["bytes"]])
}

fn same_for_any_number_of_ranks(model: &Path, recipe: &str) {
    let mut job = WorkerJob::new(model, recipe);
    let alone = job.run(&[]);
    let (expected, told) = (files(&alone.join("checkpoint")), figures(&alone));
    assert!(expected.contains_key("quality.json") && expected.contains_key("model.safetensors"));
    for ranks in ["2", "3", "4"] {
        let attempt = job.run(&["--ranks", ranks]);
        let found = files(&attempt.join("checkpoint"));
        let names = |files: &std::collections::BTreeMap<String, Vec<u8>>| -> Vec<String> {
            files.keys().cloned().collect()
        };
        assert_eq!(names(&found), names(&expected), "{recipe}, {ranks} ranks");
        let differing: Vec<&String> =
            expected.keys().filter(|name| expected[*name] != found[*name]).collect();
        assert!(differing.is_empty(), "{recipe}, {ranks} ranks: other bytes in {differing:?}");
        assert_eq!(figures(&attempt), told, "{recipe}, {ranks} ranks");
        let shared = outcome(&attempt).unwrap();
        assert_eq!(shared["ranks"].as_array().unwrap().len().to_string(), ranks);
        assert!(!attempt.join("token").exists(), "the token outlived its ranks");
    }
}

#[test]
fn a_dense_model_comes_out_the_same_for_any_number_of_ranks() {
    same_for_any_number_of_ranks(&tiny_llama(), RECIPES[0]);
}

#[test]
fn sums_over_channels_come_out_the_same_for_any_number_of_ranks() {
    same_for_any_number_of_ranks(&tiny_llama(), RECIPES[1]);
}

#[test]
fn layers_behind_quantized_ones_come_out_the_same_for_any_number_of_ranks() {
    same_for_any_number_of_ranks(&tiny_llama(), RECIPES[2]);
}

#[test]
fn a_mixture_of_experts_comes_out_the_same_for_any_number_of_ranks() {
    for recipe in RECIPES {
        same_for_any_number_of_ranks(&example_model("tiny-qwen3-moe"), recipe);
    }
}

#[test]
fn weights_that_need_no_calibration_are_shared_too() {
    same_for_any_number_of_ranks(&tiny_llama(), "general/ptq/nvfp4_weight_only-kv_fp16");
}

#[test]
fn the_launcher_starts_ranks_and_tells_what_they_took() {
    let work = tempfile::tempdir().unwrap();
    let size = ["--samples", "9", "--seq-len", "32"];
    let quantize = |out: &Path, ranks: &[&str]| -> Value {
        Quantize::new(&tiny_llama(), RECIPES[0], out).flags(&size).flags(ranks).run().json()
    };
    let (one, two) = (work.path().join("one"), work.path().join("two"));
    assert_eq!(quantize(&one, &[])["ranks"], Value::Null);
    let outcome = quantize(&two, &["--ranks", "2"]);
    let took = outcome["ranks"].as_array().unwrap();
    assert_eq!(took.len(), 2);
    assert!(took.iter().all(|rank| rank["peak_memory"].as_u64().unwrap() > 0), "{took:?}");
    assert_eq!(files(&one), files(&two));
    let call =
        Quantize::new(&tiny_llama(), RECIPES[0], &work.path().join("many")).flags(&["--ranks", "9"]).run();
    call.assert_refused(2, &["9 ranks cannot share 8 decoder layers"]);
}

#[test]
fn ranks_that_somebody_else_starts_find_each_other_by_a_file() {
    use std::os::unix::fs::PermissionsExt;
    let mut job = WorkerJob::new(&tiny_llama(), RECIPES[0]);
    let alone = job.run(&[]);
    let attempt = job.attempt();
    std::fs::create_dir_all(&attempt).unwrap();
    let token = attempt.join("token");
    std::fs::write(&token, "known to the ranks of this run only").unwrap();
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
    let place = format!("file:{}", attempt.join("meet").display());
    let mut children: Vec<_> = ["2", "0", "1"]
        .map(|rank| job.command(&attempt, &["--rank", rank, "--ranks", "3", "--rendezvous", &place]))
        .into_iter()
        .map(|mut command| command.spawn().unwrap())
        .collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(files(&attempt.join("checkpoint")), files(&alone.join("checkpoint")));
    // Each rank tells a folder of its own.
    assert_eq!(outcome(&attempt.join("ranks/2")).unwrap()["status"], "done");
}

/// Processes whose parent is `parent`, with the rank that their command line names.
fn children(parent: u32) -> Vec<(u32, String)> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let (state, of) = (fields.next()?, fields.next()?);
        (state != "Z" && of == parent.to_string()).then_some(pid)
    });
    processes
        .filter_map(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let words: Vec<String> = line
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            let at = words.iter().position(|word| word == "--rank")?;
            Some((pid, words.get(at + 1)?.clone()))
        })
        .collect()
}

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Kills one rank of three after a while.
fn kill_one(job: &mut WorkerJob, whole: &Path, (victim, after): (u64, Duration)) {
    let story = format!("rank {victim} killed after {after:?}");
    let attempt = job.attempt();
    let mut parent = job.start(&attempt, &["--ranks", "3"]);
    let mut others = Vec::new();
    let begun = Instant::now();
    // The others are started by the first one.
    while others.len() < 2 && parent.try_wait().unwrap().is_none() && begun.elapsed() < SECONDS {
        others = children(parent.id());
    }
    std::thread::sleep(after.saturating_sub(begun.elapsed()));
    let pid = match victim {
        0 => parent.id(),
        rank => {
            others
                .iter()
                .find(|(_, own)| *own == rank.to_string())
                .unwrap_or_else(|| panic!("{story}: not started"))
                .0
        }
    };
    // It may just have ended by itself.
    Command::new("kill").args(["-KILL", &pid.to_string()]).output().unwrap();
    let killed = Instant::now();
    let all: Vec<u32> = others.iter().map(|(pid, _)| *pid).chain([parent.id()]).collect();
    let status = loop {
        let ended = parent.try_wait().unwrap();
        if let Some(status) = ended.filter(|_| !all.iter().any(|&pid| runs(pid))) {
            break status;
        }
        if killed.elapsed() > SECONDS {
            for pid in &all {
                Command::new("kill").args(["-KILL", &pid.to_string()]).output().unwrap();
            }
            let log = std::fs::read_to_string(attempt.join("log")).unwrap_or_default();
            panic!("{story}: some still ran {:?} later\n{log}", killed.elapsed());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let checkpoint = attempt.join("checkpoint");
    let done = outcome(&attempt).is_some_and(|outcome| outcome["status"] == "done");
    if looks_whole(&checkpoint) {
        // Then it is whole: the kill came after its last byte, perhaps while it was measured.
        let (found, expected) = (files(&checkpoint), files(whole));
        let weights = |name: &&String| name.ends_with(".safetensors") || name.as_str() == "config.json";
        for name in expected.keys().filter(weights) {
            assert!(found.get(name) == expected.get(name), "{story}: `{name}` is not whole");
        }
    } else {
        assert!(!done, "{story}: done without a checkpoint");
    }
    if victim > 0 && !done {
        // Who is left says who is gone.
        let told = outcome(&attempt).unwrap_or_else(|| panic!("{story}: rank 0 left no outcome, {status}"));
        let message = told["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(&format!("rank {victim}")), "{story}: {message}");
        assert_eq!(told["status"], "interrupted", "{story}: another try may do better");
        assert!(!checkpoint.join(".qlaunch-partial").exists(), "{story}: unfinished files stay");
    }
}

#[test]
fn a_rank_that_is_killed_at_any_moment_ends_all_and_leaves_nothing_that_looks_whole() {
    let full = std::env::var("QLAUNCH_FULL").is_ok_and(|value| value == "1");
    let mut numbers = Numbers::new(5);
    let models: [PathBuf; 2] = [tiny_llama(), example_model("tiny-qwen3-moe")];
    let mut jobs = models.map(|model| {
        let mut job = WorkerJob::new(&model, RECIPES[1]);
        let begun = Instant::now();
        let whole = job.run(&["--ranks", "3"]).join("checkpoint");
        (job, whole, begun.elapsed())
    });
    for round in 0..if full { 50 } else { 5 } {
        let (job, whole, long) = &mut jobs[round % 2];
        let victim = numbers.below(3);
        let after = long.mul_f64(numbers.even());
        kill_one(job, whole, (victim, after));
    }
}
