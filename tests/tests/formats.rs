//! Files that older versions wrote stay readable, and reading and writing them again loses nothing.

use std::path::Path;

use qlaunch::journal;
use qlaunch::plan::Saved;
use qlaunch_shared::protocol::{DownloadEvent, Event, EventBody, JobSpec, Outcome, Status};
use qlaunch_shared::sweep::{Goal, read_sweep};
use qlaunch_tests::places::{golden, read_json};
use qlaunch_tests::programs::{finish, qlaunch};
use serde_json::Value;

/// Every line of a JSON lines golden.
fn lines(relative: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(golden(relative)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_job_spec_of_version_1_is_understood_whole() {
    let file = read_json(&golden("protocol/spec-v1.json"));
    let spec: JobSpec = serde_json::from_value(file.clone()).unwrap();
    assert_eq!(spec.candidate, "fp8_default-kv_fp8");
    assert!(spec.quantize.is_some() && spec.evaluate.is_some());
    assert_eq!(serde_json::to_value(&spec).unwrap(), file, "something was lost or renamed");
}

#[test]
fn an_outcome_of_version_1_is_understood_whole() {
    let file = read_json(&golden("protocol/outcome-v1.json"));
    let outcome: Outcome = serde_json::from_value(file.clone()).unwrap();
    assert_eq!((outcome.status, outcome.gates.len()), (Status::Done, 5));
    assert_eq!(serde_json::to_value(&outcome).unwrap(), file, "something was lost or renamed");
}

#[test]
fn events_of_version_1_are_understood_whole() {
    let file = lines("protocol/events-v1.jsonl");
    let events: Vec<Event> = file.iter().map(|line| serde_json::from_value(line.clone()).unwrap()).collect();
    assert!(matches!(events[0].body, EventBody::Started { threads: 2, .. }));
    assert!(matches!(&events.last().unwrap().body, EventBody::Failed { error } if error.hint.is_some()));
    let written: Vec<Value> = events.iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    assert_eq!(written, file, "something was lost or renamed");
}

#[test]
fn a_schedule_of_version_1_is_understood_whole() {
    let file = read_json(&golden("schedule/schedule-v1.json"));
    let schedule: qlaunch::schedule::Schedule = serde_json::from_value(file.clone()).unwrap();
    assert!(schedule.every.days[4] && !schedule.every.days[5]);
    assert_eq!(serde_json::to_value(&schedule).unwrap(), file, "something was lost or renamed");
}

#[test]
fn a_field_that_a_newer_version_adds_is_tolerated() {
    let mut file = read_json(&golden("protocol/outcome-v1.json"));
    file["moon_phase"] = "waxing".into();
    let outcome: Outcome = serde_json::from_value(file).unwrap();
    assert_eq!(outcome.status, Status::Done);
}

#[test]
fn a_sweep_file_of_version_1_is_understood() {
    let path = golden("sweep/sweep-v1.yaml");
    let sweep = read_sweep(&std::fs::read_to_string(&path).unwrap(), &path).unwrap();
    assert_eq!((sweep.objective.key.as_str(), sweep.objective.goal), ("active_bytes_per_token", Goal::Min));
    let names: Vec<&str> = sweep.candidates.iter().map(|candidate| candidate.name.as_str()).collect();
    assert_eq!(names, ["fp8_default-kv_fp8", "few-samples"]);
    assert_eq!(sweep.candidates[1].calibration.as_ref().unwrap().samples, Some(16));
    assert_eq!((sweep.acceptance.len(), sweep.gates.len(), sweep.resources.threads), (1, 1, Some(2)));
}

#[test]
fn a_portfolio_of_version_1_is_shown_by_the_program() {
    let file = golden("sweep/portfolio-v1.json");
    let work = tempfile::tempdir().unwrap();
    let run = work.path().join("runs/tiny-llama-b8c4");
    std::fs::create_dir_all(&run).unwrap();
    std::fs::copy(&file, run.join("portfolio.json")).unwrap();
    let show = |format: &str| {
        let mut command = qlaunch(work.path());
        command
            .args(["portfolio", "tiny-llama-b8c4", "--format", format, "--runs"])
            .arg(work.path().join("runs"));
        finish(command)
    };
    assert_eq!(show("json").json(), read_json(&file), "something was lost or renamed");
    let text = show("text");
    text.assert_code(0);
    for words in ["fp8_default-kv_fp8", "reject: Δ over 1%", "114.81", "recommended"] {
        assert!(text.stdout.contains(words), "`{words}` is not in:\n{}", text.stdout);
    }
}

#[test]
fn a_journal_of_version_1_is_understood_whole_and_its_torn_tail_is_tolerated() {
    let path = golden("journal/journal-v1.jsonl");
    let bytes = std::fs::read(&path).unwrap();
    let (read, good) = journal::parse(&bytes).unwrap();
    assert_eq!(good, bytes.len());
    let written: Vec<Value> = read.iter().map(|line| serde_json::to_value(line).unwrap()).collect();
    assert_eq!(written, lines("journal/journal-v1.jsonl"), "something was lost or renamed");
    let (kept, good) = journal::parse(&bytes[..bytes.len() - 7]).unwrap();
    assert_eq!(kept.len(), read.len() - 1, "only the torn line is lost");
    assert!(bytes[..good].ends_with(b"\n"), "what is good ends with a line");
}

#[test]
fn a_journal_of_version_2_knows_arrays_and_is_understood_whole() {
    let bytes = std::fs::read(golden("journal/journal-v2.jsonl")).unwrap();
    let (read, good) = journal::parse(&bytes).unwrap();
    assert_eq!(good, bytes.len());
    let written: Vec<Value> = read.iter().map(|line| serde_json::to_value(line).unwrap()).collect();
    assert_eq!(written, lines("journal/journal-v2.jsonl"), "something was lost or renamed");
}

#[test]
fn a_submitted_run_of_version_1_is_understood_whole() {
    let work = tempfile::tempdir().unwrap();
    let file = golden("plan/run-v1.json");
    std::fs::copy(&file, work.path().join("run.json")).unwrap();
    let saved = Saved::read(work.path()).unwrap();
    assert_eq!(saved.run.folder, work.path(), "it lies where it is read");
    assert_eq!(serde_json::to_value(&saved).unwrap(), read_json(&file), "something was lost or renamed");
}

#[test]
fn every_golden_of_a_format_is_read_by_a_test() {
    let own = include_str!("formats.rs");
    for folder in ["protocol", "sweep", "journal", "plan"] {
        for entry in std::fs::read_dir(golden(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = Path::new(folder).join(&name);
            assert!(own.contains(path.to_str().unwrap()), "no test reads tests/golden/{}", path.display());
        }
    }
}

#[test]
fn lines_of_a_download_of_version_1_are_understood_whole() {
    let file = lines("protocol/download-v1.jsonl");
    let events: Vec<DownloadEvent> =
        file.iter().map(|line| serde_json::from_value(line.clone()).unwrap()).collect();
    assert!(matches!(&events[1], DownloadEvent::Again { error } if error.hint.is_some()));
    let DownloadEvent::Found(snapshot) = &events[2] else { panic!("{:?}", events[2]) };
    assert_eq!((snapshot.repository.as_str(), snapshot.missing()), ("org/name", 16_269_752));
    let written: Vec<Value> = events.iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    assert_eq!(written, file, "something was lost or renamed");
}
