//! What lies in a store, and what an attempt did.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::worker_job::outcome;

/// Folders of all artifacts of a store.
pub fn artifacts(store: &Path) -> Vec<PathBuf> {
    let list = |folder: &Path| -> Vec<PathBuf> {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(folder).map_or(Vec::new(), |all| all.flatten().map(|entry| entry.path()).collect());
        entries.sort();
        entries
    };
    list(&store.join("objects")).iter().flat_map(|group| list(group)).collect()
}

/// What an artifact was made by: `layer`, `statistics`, …; `gone` where there is none.
pub fn step(artifact: &Path) -> String {
    // A job that runs meanwhile may have taken it away.
    let Ok(text) = fs::read(artifact.join("manifest.json")) else { return "gone".to_owned() };
    let manifest: Value = serde_json::from_slice(&text).expect("a manifest is JSON");
    manifest["origin"]["step"].as_str().expect("a step").to_owned()
}

/// Phases of an attempt, in order.
pub fn phases(attempt: &Path) -> Vec<String> {
    let told = outcome(attempt).expect("an outcome has phases");
    let phases = told["phases"].as_array().expect("an outcome has phases");
    phases.iter().map(|phase| phase["phase"].as_str().expect("an outcome has phases").to_owned()).collect()
}

/// How much an attempt had ahead of it when it began a phase, in the phase's units; none where it did not begin it.
pub fn ahead(attempt: &Path, phase: &str) -> Option<u64> {
    let events = fs::read_to_string(attempt.join("events.jsonl")).unwrap_or_default();
    let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let begun = |event: Value| (event["phase"] == phase && event["total"].is_u64()).then_some(event);
    events.filter_map(begun).next_back().and_then(|event| event["total"].as_u64())
}
