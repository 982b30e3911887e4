//! `--smoke`, `--smoke-first` and what a dry run compares, through the real program with a worker that only pretends.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "each test file uses a part of the world")]
mod fake;

use std::fs;

use fake::World;
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not one JSON document ({error}): {text}"))
}

#[test]
fn a_smoke_run_makes_every_candidate_small_and_leaves_real_runs_alone() {
    let world = World::new();
    let ran = world.run(&["submit", "sweep.yaml", "--smoke"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(world.ran(), ["bf16", "first", "second"]);
    assert!(ran.stdout.contains("second  ok, 1 gates"), "{}", ran.stdout);
    let names: Vec<_> =
        fs::read_dir(world.path("runs")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [".smoke"]);
    let smoke = fs::read_dir(world.path("runs/.smoke")).unwrap().map(|entry| entry.unwrap().path());
    let run = smoke.into_iter().find(|path| path.join("journal.jsonl").exists()).unwrap();
    let spec = json(&fs::read_to_string(run.join("first/spec.json")).unwrap());
    assert_eq!(spec["quantize"]["calibration"]["samples"], 4);
    let config = format!("{}/config.json", spec["model"].as_str().unwrap());
    assert_eq!(json(&fs::read_to_string(config).unwrap())["num_hidden_layers"], 2);
    // Whatever was found last time says nothing about now.
    assert_eq!(world.run(&["submit", "sweep.yaml", "--smoke"]).code, 0);
    assert_eq!(world.ran().len(), 6);
    let portfolio = world.run(&["portfolio"]);
    assert!(portfolio.stderr.contains("there is no run yet"), "{}", portfolio.stderr);
}

#[test]
fn what_does_not_get_through_the_smoke_run_is_not_submitted() {
    let world = World::new();
    world.tell("second", "fail");
    let ran = world.run(&["submit", "sweep.yaml", "--smoke-first"]);
    assert_eq!(ran.code, 11, "{}", ran.stderr);
    assert!(ran.stderr.contains("1 of 3 that would not work"), "{}", ran.stderr);
    assert_eq!(world.ran().len(), 3, "nothing was submitted");
    world.tell("second", "ok");
    world.tell("second.gate", "fail");
    assert_eq!(world.run(&["submit", "sweep.yaml", "--smoke"]).code, 10);
    world.tell("second.gate", "pass");
    let ran = world.run(&["submit", "sweep.yaml", "--smoke-first", "--format", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(json(&ran.stdout)["rows"].as_array().unwrap().len(), 3, "one document");
    assert_eq!(world.ran().len(), 12);
}

#[test]
fn a_dry_run_tells_what_is_different_from_the_last_run_of_the_sweep() {
    let world = World::new();
    assert_eq!(world.run(&["submit", "sweep.yaml"]).code, 0);
    let same = world.run(&["submit", "sweep.yaml", "--dry-run"]);
    assert!(same.stdout.contains("nothing is different"), "{}", same.stdout);
    let text = fs::read_to_string(world.path("sweep.yaml")).unwrap();
    let text = text.replace("samples: 1", "samples: 2").replace("name: second,", "name: third,");
    fs::write(world.path("sweep.yaml"), text).unwrap();
    let dry = world.run(&["submit", "sweep.yaml", "--dry-run"]);
    for line in [
        "first is changed",
        "evaluate.tokens.samples: 1 → 2",
        "third is new",
        "second is gone",
        "compared with tiny-",
    ] {
        assert!(dry.stdout.contains(line), "{line}: {}", dry.stdout);
    }
    let dry = json(&world.run(&["submit", "sweep.yaml", "--dry-run", "--format", "json"]).stdout);
    assert_eq!(dry["last"]["changes"].as_array().unwrap().len(), 4, "{:#}", dry["last"]);
    assert_eq!(world.ran().len(), 3, "a dry run runs nothing");
}
