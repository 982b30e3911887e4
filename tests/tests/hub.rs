//! Models and data of the Hub, by the real binaries against a small Hub on this machine: the cache, faults, refusals, tokens.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use qlaunch_tests::cluster::wait;
use qlaunch_tests::hub::{COMMIT, Fault, Hub, TOKEN};
use qlaunch_tests::places::{calibration_ids, evaluation_ids, tiny_llama};
use qlaunch_tests::programs::{Call, finish, program, qlaunch};
use serde_json::Value;

const WEIGHTS: &str = "model.safetensors";

/// A Hub with a model and a data set.
fn hub(work: &Path) -> Hub {
    let hub = Hub::start();
    hub.add("models/tiny/llama", &tiny_llama());
    let data = work.join("data");
    fs::create_dir(&data).unwrap();
    fs::copy(calibration_ids(), data.join("tokens.npy")).unwrap();
    fs::write(data.join("README.md"), "Tokens.\n").unwrap();
    hub.add("datasets/tiny/tokens", &data);
    hub
}

/// The worker as the launcher calls it.
fn worker(hub: &Hub, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("qlaunch-worker"));
    command.env_clear().env("HOME", home).env("HF_ENDPOINT", hub.endpoint());
    command.arg("download").args(arguments);
    command
}

fn events(call: &Call) -> Vec<Value> {
    call.stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn repository(home: &Path) -> PathBuf {
    home.join(".cache/huggingface/hub/models--tiny--llama")
}

fn snapshot(home: &Path) -> PathBuf {
    repository(home).join("snapshots").join(COMMIT)
}

#[track_caller]
fn assert_whole(home: &Path) {
    for name in ["config.json", "tokenizer.json", WEIGHTS] {
        let there = snapshot(home).join(name);
        assert_eq!(fs::read(&there).unwrap(), fs::read(tiny_llama().join(name)).unwrap(), "{name}");
        let link = fs::read_link(&there).unwrap();
        assert!(link.starts_with("../../blobs"), "{}", link.display());
    }
    let left: Vec<_> = fs::read_dir(repository(home).join("blobs")).unwrap().flatten().collect();
    assert!(left.iter().all(|blob| !blob.path().to_string_lossy().ends_with(".incomplete")), "{left:?}");
}

/// A sweep of one candidate with a model and data by name.
fn sweep(work: &Path, model: &str, data: &str) -> PathBuf {
    let path = work.join("sweep.yaml");
    let text = format!(
        "version: 1\nname: from-hub\nmodel: {model}\nobjective: memory\nacceptance:\n  perplexity: {{within: 50%, of: bf16}}\n\
         calibration: {{data: {data}, samples: 4, batch_size: 4}}\n\
         evaluate: {{data: {}, samples: 2, seq_len: 256}}\nbaselines: [bf16]\n\
         candidates:\n  - general/ptq/fp8_default-kv_fp8\n",
        evaluation_ids().display()
    );
    fs::write(&path, text).unwrap();
    path
}

fn submit(hub: &Hub, work: &Path, more: &[&str]) -> Call {
    let mut command = qlaunch(work);
    command.current_dir(work).env("HF_ENDPOINT", hub.endpoint());
    command.args(["submit", "--cluster", "local", "sweep.yaml"]).args(more);
    finish(command)
}

#[test]
fn a_sweep_on_a_model_and_data_of_the_hub_ends_as_on_the_same_files_here() {
    let work = tempfile::tempdir().unwrap();
    let hub = hub(work.path());
    sweep(work.path(), "tiny/llama", "tiny/tokens/tokens.npy");
    let size = fs::metadata(tiny_llama().join(WEIGHTS)).unwrap().len();

    // A plan costs headers, and says what will be downloaded.
    let plan = submit(&hub, work.path(), &["--dry-run"]);
    plan.assert_code(0);
    assert!(
        plan.stdout
            .contains("tiny/llama@0123456789abcdef0123456789abcdef01234567 of the Hub has to be downloaded"),
        "{}",
        plan.stdout
    );
    assert!((hub.sent() as u64) < size / 2, "{} bytes for a plan", hub.sent());
    assert!(!snapshot(work.path()).join(WEIGHTS).exists());

    let ran = submit(&hub, work.path(), &["--format", "json"]).json();
    assert_whole(work.path());
    let asked = hub.questions();
    let again = submit(&hub, work.path(), &["--format", "json"]);
    assert_eq!(
        again.json(),
        ran,
        "a finished run is shown again: its name does not depend on what was there"
    );
    assert_eq!(hub.questions()[asked.len()..], [], "what is in the cache is not asked for");

    let near = tempfile::tempdir().unwrap();
    let data = calibration_ids().display().to_string();
    sweep(near.path(), &tiny_llama().display().to_string(), &data);
    let local = submit(&hub, near.path(), &["--format", "json"]).json();
    for (ours, theirs) in ran["rows"].as_array().unwrap().iter().zip(local["rows"].as_array().unwrap()) {
        for figure in ["candidate", "perplexity", "kl_mean", "bytes"] {
            assert_eq!(ours[figure], theirs[figure], "{figure}");
        }
    }
}

#[test]
fn whatever_happens_on_the_way_the_files_arrive_whole() {
    let work = tempfile::tempdir().unwrap();
    let hub = hub(work.path());
    let size = usize::try_from(fs::metadata(tiny_llama().join(WEIGHTS)).unwrap().len()).unwrap();
    let faults =
        [Fault::Busy(503, 0), Fault::Cut(100_000), Fault::Busy(429, 1), Fault::Cut(1_000_000), Fault::Cut(0)];
    hub.befall(WEIGHTS, &faults);
    hub.befall("config.json", &[Fault::Cut(10), Fault::Busy(500, 0)]);
    hub.befall("tokenizer.json", &[Fault::Wrong]);
    let begun = std::time::Instant::now();
    let call = finish(worker(&hub, work.path(), &["tiny/llama"]));
    call.assert_code(0);
    assert!(begun.elapsed().as_secs_f64() >= 1.0, "`Retry-After: 1` is a second");
    assert_whole(work.path());
    let said: Vec<String> = events(&call)
        .iter()
        .filter(|event| event["event"] == "again")
        .map(|event| event["error"]["message"].to_string())
        .collect();
    assert!(said.iter().any(|text| text.contains("status 429")), "{said:?}");
    // What had arrived was not sent again.
    let of_weights = |question: &&qlaunch_tests::hub::Question| question.path.starts_with("/store/");
    let largest =
        hub.questions().iter().filter(of_weights).filter_map(|question| question.from).max().unwrap();
    assert!(largest >= 1_000_000, "{largest}");
    let tokenizer =
        usize::try_from(fs::metadata(tiny_llama().join("tokenizer.json")).unwrap().len()).unwrap();
    assert!(hub.sent() < size + 2 * tokenizer + 1_200_000, "{} bytes of {size}", hub.sent());
}

#[test]
fn a_server_that_knows_no_ranges_gives_the_whole_file_once_more() {
    let work = tempfile::tempdir().unwrap();
    let hub = hub(work.path());
    hub.befall(WEIGHTS, &[Fault::Cut(500_000), Fault::Whole]);
    finish(worker(&hub, work.path(), &["tiny/llama"])).assert_code(0);
    assert_whole(work.path());
}

#[test]
fn bytes_that_are_wrong_again_are_refused_and_never_called_a_model() {
    let work = tempfile::tempdir().unwrap();
    let hub = hub(work.path());
    hub.befall(WEIGHTS, &[Fault::Wrong, Fault::Wrong]);
    let call = finish(worker(&hub, work.path(), &["tiny/llama"]));
    call.assert_refused(20, &["what arrives of `model.safetensors` is not what the Hub announces"]);
    assert!(!snapshot(work.path()).join(WEIGHTS).exists());
    finish(worker(&hub, work.path(), &["tiny/llama"])).assert_code(0);
    assert_whole(work.path());
}

#[test]
fn a_download_that_is_killed_goes_on_where_it_was() {
    let work = tempfile::tempdir().unwrap();
    let hub = hub(work.path());
    hub.befall(WEIGHTS, &[Fault::Slow(50)]);
    let mut command = worker(&hub, work.path(), &["tiny/llama"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let part = || {
        let blobs = fs::read_dir(repository(work.path()).join("blobs")).ok()?;
        let part = |entry: &fs::DirEntry| entry.path().to_string_lossy().ends_with(".incomplete");
        let sizes =
            blobs.flatten().filter(part).filter_map(|entry| entry.metadata().ok()).map(|file| file.len());
        // More than the tokenizer has: it is the weights'.
        sizes.max().filter(|size| *size > 400_000)
    };
    wait("a part of the weights", part);
    child.kill().unwrap();
    child.wait().unwrap();
    let there = part().unwrap();
    let before = hub.questions().len();
    finish(worker(&hub, work.path(), &["tiny/llama"])).assert_code(0);
    assert_whole(work.path());
    let asked = hub.questions();
    let from = asked[before..]
        .iter()
        .filter(|question| question.path.starts_with("/store/"))
        .filter_map(|question| question.from);
    let from: Vec<u64> = from.collect();
    assert!(from.contains(&there), "after the kill the rest from {there} on is asked for: {from:?}");
}

#[test]
fn refusals_say_what_to_do() {
    let work = tempfile::tempdir().unwrap();
    let hub = hub(work.path());
    hub.add("models/tiny/gated", &tiny_llama());
    hub.gate("models/tiny/gated");
    let ask = |arguments: &[&str], token: Option<&str>| {
        let mut command = worker(&hub, work.path(), arguments);
        command.envs(token.map(|token| ("HF_TOKEN", token)));
        finish(command)
    };
    let gated = ask(&["tiny/gated"], None);
    gated.assert_refused(3, &["`tiny/gated` is gated, and there is no token", "export HF_TOKEN"]);
    ask(&["tiny/gated"], Some("hf_other")).assert_refused(3, &["the token's owner has no access"]);
    ask(&["tiny/none"], None).assert_refused(3, &["does not exist, or is private or gated"]);
    ask(&["tiny/none"], Some(TOKEN)).assert_refused(3, &["there is no `tiny/none` on the Hub"]);
    ask(&["tiny/llama", "--revision", "v9"], None).assert_refused(3, &["`tiny/llama` has no such revision"]);
    ask(&["tiny/tokens", "--dataset", "--file", "b.txt"], None)
        .assert_refused(3, &["has no `b.txt`", "tokens.npy"]);
    ask(&["../etc/passwd"], None).assert_refused(3, &["is no repository of the Hub"]);
    let mut silent = worker(&hub, work.path(), &["tiny/llama"]);
    silent.env("HF_ENDPOINT", "http://127.0.0.1:9");
    finish(silent).assert_refused(20, &["the Hub at http://127.0.0.1:9 does not answer"]);
    // The last line says the same to the launcher.
    assert_eq!(events(&gated).last().unwrap()["error"]["kind"], "input");
    let mut typed = qlaunch(work.path());
    typed.env("HF_ENDPOINT", hub.endpoint()).current_dir(work.path());
    typed.args(["plan", "tiny/none", "--recipe", "general/ptq/fp8_default-kv_fp8"]);
    finish(typed).assert_refused(3, &["there is no `tiny/none` here", "check the name"]);
}

#[test]
fn a_token_goes_to_the_hub_alone_and_into_no_file() {
    let work = tempfile::tempdir().unwrap();
    let hub = hub(work.path());
    hub.gate("models/tiny/llama");
    sweep(work.path(), "tiny/llama@main", "hf://datasets/tiny/tokens/tokens.npy");
    let mut command = qlaunch(work.path());
    command.current_dir(work.path()).env("HF_ENDPOINT", hub.endpoint()).env("HF_TOKEN", TOKEN);
    command.args(["submit", "--cluster", "local", "sweep.yaml"]);
    let call = finish(command);
    call.assert_code(0);
    assert!(!format!("{}{}", call.stdout, call.stderr).contains(TOKEN));
    let strangers: Vec<_> =
        hub.questions().into_iter().filter(|question| question.host.starts_with("localhost")).collect();
    assert!(
        !strangers.is_empty() && strangers.iter().all(|question| question.authorization.is_none()),
        "{strangers:?}"
    );
    let found = Command::new("grep").args(["-r", "-l", "-a", TOKEN]).arg(work.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "files with the token");
}

#[test]
fn what_other_programs_put_into_the_cache_is_found_without_the_hub() {
    let work = tempfile::tempdir().unwrap();
    let home = work.path().join("hf");
    let folder = home.join("hub/models--tiny--llama");
    let there = folder.join("snapshots").join(COMMIT);
    fs::create_dir_all(&there).unwrap();
    fs::create_dir_all(folder.join("refs")).unwrap();
    fs::write(folder.join("refs/main"), COMMIT).unwrap();
    for entry in fs::read_dir(tiny_llama()).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), there.join(entry.file_name())).unwrap();
    }
    let mut command = qlaunch(work.path());
    command.current_dir(work.path()).env("HF_HOME", &home).env("HF_ENDPOINT", "http://127.0.0.1:9");
    command.args(["plan", "tiny/llama", "--recipe", "general/ptq/fp8_default-kv_fp8", "--format", "json"]);
    assert!(finish(command).json()["totals"].is_object());
}
