//! `qlaunch submit` through the real program, with a worker that only pretends.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod fake;

use std::fs;

use fake::{World, signal, wait_for};
use serde_json::Value;

fn portfolio(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not one JSON document ({error}): {text}"))
}

fn decisions(portfolio: &Value) -> Vec<String> {
    let rows = portfolio["rows"].as_array().unwrap();
    rows.iter().map(|row| row["decision"]["is"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_sweep_ends_in_a_portfolio_with_the_best_candidate_last() {
    let world = World::new();
    world.tell("first.perplexity", "100.5");
    world.tell("second.perplexity", "110.0");
    world.tell("second.bytes", "7621832");
    let ran = world.run(&["submit", "--cluster", "local", "sweep.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let name = world.run_folder().file_name().unwrap().to_str().unwrap().to_owned();
    let shown = ran.stdout.replace(&name, "tiny-XXXX").replace(&fake::model().display().to_string(), "MODEL");
    insta::assert_snapshot!(shown, @r"
    tiny-XXXX · 8.1 M parameters · baseline bf16 and 2 candidates · objective: memory, perplexity within 1% of bf16
      first   56 of 57 linears FP8, lm_head bf16, KV cache FP8 in 8 layers · 10.25 MB (0.63×) · 9.2 bits · vLLM, SGLang, TensorRT-LLM
      second  56 of 57 linears NVFP4, lm_head bf16, KV cache FP8 in 8 layers · 7.62 MB (0.47×) · 6.2 bits · vLLM, SGLang, TensorRT-LLM

    candidate    memory ↓    size  ratio  bits  MB/token  perplexity       Δ      KL  gates   decision           checkpoint
    bf16       10,251,264  10.25M   0.50   8.5       8.1      100.00       –  0.0100  1 pass  baseline           MODEL
    first      10,251,264  10.25M   0.50   8.5       8.1      100.50   +0.5%  0.0100  1 pass  best               runs/tiny-XXXX/first/checkpoint
    second      7,621,832   7.62M   0.50   8.5       8.1      110.00  +10.0%  0.0100  1 pass  reject: Δ over 1%  runs/tiny-XXXX/second/checkpoint

    recommended: first · runs/tiny-XXXX/first/checkpoint
      best for memory with perplexity within 1% of bf16: 10.25 MB, 0.50× the source's size, perplexity +0.5%; the only one of 2 that is acceptable
    next: measure it on text of your own: `qlaunch eval runs/tiny-XXXX/first/checkpoint --data FILE --reference MODEL`
    ");
    assert_eq!(world.ran(), ["bf16", "first", "second"]);
}

#[test]
fn stdout_is_one_json_document_and_the_same_as_the_kept_portfolio() {
    let world = World::new();
    let ran = world.run(&["submit", "sweep.yaml", "--format", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let shown = portfolio(&ran.stdout);
    assert_eq!(decisions(&shown), ["baseline", "best", "accepted"]);
    let again = world.run(&["portfolio", "--format", "json"]);
    assert_eq!(portfolio(&again.stdout), shown);
    let by_name = world.run(&["portfolio", shown["run"].as_str().unwrap(), "--format", "json"]);
    assert_eq!(by_name.stdout, again.stdout);
}

#[test]
fn results_are_moved_up_from_the_accepted_attempt() {
    let world = World::new();
    world.tell("first", "die-once");
    assert_eq!(world.run(&["submit", "sweep.yaml"]).code, 0);
    let run = world.run_folder();
    let model = fs::read_to_string(run.join("first/checkpoint/model.safetensors")).unwrap();
    assert!(model.trim().ends_with("first/attempts/2"), "{model}");
    assert!(run.join("reference.safetensors").is_file());
    assert!(!run.join("first/attempts/2/checkpoint").exists());
    let spec: Value = serde_json::from_slice(&fs::read(run.join("first/spec.json")).unwrap()).unwrap();
    let kept = spec["evaluate"]["reference"]["kept"].as_str().unwrap();
    assert_eq!(kept, run.join("reference.safetensors").to_str().unwrap());
}

#[test]
fn a_failed_candidate_does_not_stop_the_others_and_gives_code_11() {
    let world = World::new();
    world.tell("first", "fail");
    let ran = world.run(&["submit", "sweep.yaml", "--format", "json"]);
    assert_eq!(ran.code, 11, "{}", ran.stderr);
    let shown = portfolio(&ran.stdout);
    assert_eq!(decisions(&shown), ["baseline", "failed", "best"]);
    assert_eq!(shown["rows"][1]["decision"]["error"]["hint"], "check the model");
    assert!(ran.stderr.contains("first failed: NaN in a weight"), "{}", ran.stderr);

    // Mended, only what is missing runs.
    world.tell("first", "ok");
    assert_eq!(world.run(&["submit", "sweep.yaml"]).code, 0);
    assert_eq!(world.ran(), ["bf16", "first", "second", "first"]);
}

#[test]
fn a_worker_that_dies_is_tried_again_and_then_given_up() {
    let world = World::new();
    world.tell("first", "die");
    world.tell("second", "mute");
    let ran = world.run(&["submit", "sweep.yaml", "--format", "json"]);
    assert_eq!(ran.code, 11, "{}", ran.stderr);
    let shown = portfolio(&ran.stdout);
    let message =
        |row: usize| shown["rows"][row]["decision"]["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        message(1).starts_with("given up after 2 tries: the worker was killed (signal 9)"),
        "{}",
        message(1)
    );
    assert_eq!(
        message(2),
        "the worker ended with code 101 and no outcome; its last words: thread 'main' panicked at somewhere"
    );
    assert_eq!(world.ran(), ["bf16", "first", "first", "second"]);
}

#[test]
fn garbage_and_gaps_in_the_events_are_told_and_do_no_harm() {
    let world = World::new();
    world.tell("first", "garbage");
    let ran = world.run(&["submit", "sweep.yaml", "--format", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for told in
        ["cannot be read: this is no event", "2 lines of its events are missing", "first: look at this"]
    {
        assert!(ran.stderr.contains(told), "{told}: {}", ran.stderr);
    }
    assert_eq!(portfolio(&ran.stdout)["rows"][1]["notes"][0], "look at this");
}

#[test]
fn a_failed_gate_rejects_the_candidate_and_gives_code_10() {
    let world = World::new();
    world.tell("first.gate", "fail");
    let ran = world.run(&["submit", "sweep.yaml"]);
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert!(ran.stdout.contains("reject: gate size"), "{}", ran.stdout);
    assert!(ran.stdout.contains("gate size failed for first: ratio 0.5"), "{}", ran.stdout);
}

#[test]
fn without_its_baseline_no_candidate_runs() {
    let world = World::new();
    world.tell("bf16", "fail");
    let ran = world.run(&["submit", "sweep.yaml"]);
    assert_eq!(ran.code, 11);
    assert_eq!(world.ran(), ["bf16"]);
    assert!(ran.stdout.contains("not run, because its baseline `bf16` failed"), "{}", ran.stdout);
}

#[test]
fn what_is_done_is_not_run_again_unless_asked_for_or_gone() {
    let world = World::new();
    assert_eq!(world.run(&["submit", "sweep.yaml"]).code, 0);
    let again = world.run(&["submit", "sweep.yaml"]);
    assert_eq!((again.code, world.ran().len()), (0, 3), "{}", again.stderr);

    fs::remove_dir_all(world.run_folder().join("second/checkpoint")).unwrap();
    let gone = world.run(&["submit", "sweep.yaml"]);
    assert!(gone.stderr.contains("second: its results are gone, so it runs again"), "{}", gone.stderr);
    assert_eq!(world.ran()[3..], ["second"]);

    let refused = world.run(&["submit", "sweep.yaml", "--fresh"]);
    assert_eq!(refused.code, 2, "nobody can answer: {}", refused.stderr);
    assert_eq!(world.run(&["submit", "sweep.yaml", "--fresh", "--yes"]).code, 0);
    assert_eq!(world.ran()[4..], ["bf16", "first", "second"]);
}

#[test]
fn a_changed_rule_judges_the_same_run_again_without_running_anything() {
    let world = World::new();
    world.tell("first.perplexity", "101.5");
    world.tell("second.perplexity", "120.0");
    assert!(world.run(&["submit", "sweep.yaml"]).stdout.contains("recommended: none"));
    let sweep = fs::read_to_string(world.path("sweep.yaml")).unwrap().replace("within: 1%", "within: 2%");
    fs::write(world.path("sweep.yaml"), sweep).unwrap();
    assert!(world.run(&["submit", "sweep.yaml"]).stdout.contains("recommended: first"));
    assert_eq!(world.ran().len(), 3);
}

#[test]
fn interrupting_stops_the_worker_and_submitting_again_goes_on() {
    let world = World::new();
    world.tell("first", "wait");
    let child = world.start_until(&["submit", "sweep.yaml"], "first");
    signal(&child, "INT");
    let ran = world.read(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 30, "{}", ran.stderr);
    assert!(ran.stderr.contains("stopped with 1 of 3 done, and nothing is lost"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("hint: go on with `qlaunch submit --cluster local sweep.yaml`"),
        "{}",
        ran.stderr
    );
    world.tell("go", "");
    assert_eq!(world.run(&["submit", "sweep.yaml"]).code, 0);
    assert_eq!(world.ran(), ["bf16", "first", "first", "second"]);
}

#[test]
fn a_killed_launcher_loses_nothing_and_its_worker_is_taken_over() {
    let world = World::new();
    world.tell("first", "wait");
    let mut child = world.start_until(&["submit", "sweep.yaml"], "first");
    signal(&child, "KILL");
    child.wait().unwrap();
    let second = world.command(&["submit", "sweep.yaml"]).spawn().unwrap();
    let journal = world.run_folder().join("journal.jsonl");
    wait_for(|| fs::read_to_string(&journal).unwrap().matches("\"opened\"").count() == 2);
    world.tell("go", "");
    let ran = world.read(second.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("first: still running (attempt 1), watched again"), "{}", ran.stderr);
    assert_eq!(world.ran(), ["bf16", "first", "second"], "nothing is submitted twice");
}

#[test]
fn two_launchers_never_drive_one_run() {
    let world = World::new();
    world.tell("bf16", "wait");
    let child = world.start_until(&["submit", "sweep.yaml"], "bf16");
    let refused = world.run(&["submit", "sweep.yaml"]);
    assert_eq!(refused.code, 3);
    assert!(refused.stderr.contains("another qlaunch drives this run"), "{}", refused.stderr);
    world.tell("go", "");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn a_dry_run_shows_what_would_be_written_and_writes_nothing() {
    let world = World::new();
    let dry = world.run(&["submit", "sweep.yaml", "--dry-run", "--format", "json"]);
    assert_eq!(dry.code, 0, "{}", dry.stderr);
    assert!(!world.path("runs").exists());
    let dry = portfolio(&dry.stdout);
    assert_eq!(world.run(&["submit", "sweep.yaml"]).code, 0);
    for job in dry["jobs"].as_array().unwrap() {
        let folder = world.run_folder().join(job["candidate"].as_str().unwrap());
        let script = fs::read_to_string(folder.join("job.sh")).unwrap();
        let shown =
            job["script"].as_str().unwrap().replace("WORLD", &world.folder.path().display().to_string());
        assert_eq!(script, shown);
    }
}

#[test]
fn a_run_folder_of_another_sweep_is_left_alone() {
    let world = World::new();
    assert_eq!(world.run(&["submit", "sweep.yaml"]).code, 0);
    let journal = world.run_folder().join("journal.jsonl");
    let text = fs::read_to_string(&journal).unwrap();
    let other = text.replacen("\"identity\":\"", "\"identity\":\"other", 1);
    assert_ne!(other, text);
    fs::write(&journal, other).unwrap();
    let ran = world.run(&["submit", "sweep.yaml"]);
    assert_eq!((ran.code, world.ran().len()), (3, 3), "{}", ran.stderr);
    assert!(ran.stderr.contains("belongs to another sweep of this name"), "{}", ran.stderr);
}

#[test]
fn a_run_has_one_name_wherever_it_is_submitted_from() {
    let world = World::new();
    assert_eq!(world.run(&["submit", "sweep.yaml"]).code, 0);
    // The same recipes, found in a folder of the project instead of the built-in library.
    let recipes = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes").canonicalize().unwrap();
    std::os::unix::fs::symlink(recipes, world.path("recipes")).unwrap();
    assert_eq!(world.run(&["submit", "sweep.yaml"]).code, 0);
    assert_eq!(world.ran().len(), 3);
    world.run_folder();
}

#[test]
fn a_cap_on_gpu_hours_is_refused_where_nobody_can_tell_them() {
    let ran = World::new().run(&["submit", "--max-gpu-hours", "5", "sweep.yaml"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("slurm.time"), "{}", ran.stderr);
}

#[test]
fn without_a_scheduler_the_launcher_holds_jobs_until_they_may_begin() {
    let world = World::new();
    let before = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let ran = world.run(&["submit", "--begin", "now+2", "sweep.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("if this command still runs"), "{}", ran.stderr);
    let journal = fs::read_to_string(world.run_folder().join("journal.jsonl")).unwrap();
    let lines = journal.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let first = lines.into_iter().find(|line| line["entry"]["is"] == "submitting").unwrap();
    assert!(u128::from(first["at"].as_u64().unwrap()) >= before + 2000, "{first}");
}

#[test]
fn a_checkpoint_is_fetched_by_the_name_of_its_run_and_candidate_and_goes_on_where_it_stopped() {
    let world = World::new();
    assert_eq!(world.run(&["submit", "sweep.yaml"]).code, 0);
    let run = world.run_folder().file_name().unwrap().to_str().unwrap().to_owned();
    let name = format!("{run}/second");
    let ran = world.run(&["fetch", &name, "--to", "home"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let made = world.run_folder().join("second/checkpoint/model.safetensors");
    let bytes = fs::read(&made).unwrap();
    let fetched = world.path("home/second/model.safetensors");
    assert_eq!(fs::read(&fetched).unwrap(), bytes);
    assert!(!world.path("home/first").exists(), "only what was named");
    // A torn one: what is there of it is kept, and wrong bytes are found by the digest.
    let digest = qlaunch_shared::digest::sha256_of_file(&made).unwrap().0;
    let part = world.path(&format!("home/second/model.safetensors.{}.part", &digest[..16]));
    for (there, code) in [(bytes[..bytes.len() / 2].to_vec(), 0), (vec![7; bytes.len()], 3), (Vec::new(), 0)]
    {
        drop(fs::remove_file(&fetched));
        fs::write(&part, there).unwrap();
        let ran = world.run(&["fetch", &format!("runs/{name}/"), "--to", "home"]);
        assert_eq!(ran.code, code, "{}", ran.stderr);
        assert_eq!(fetched.exists(), code == 0);
        assert!(!part.exists());
    }
    let wrong = world.run(&["fetch", &format!("{run}/third")]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("has no job `third`"), "{}", wrong.stderr);
}
