//! What lies in a store, and what an attempt did.

use std::fs;
use std::path::{Path, PathBuf};

use crate::places::read_json;
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

/// What an artifact was made by: `layer`, `statistics`, ….
pub fn step(artifact: &Path) -> String {
    read_json(&artifact.join("manifest.json"))["origin"]["step"].as_str().expect("a step").to_owned()
}

/// Phases of an attempt, in order.
pub fn phases(attempt: &Path) -> Vec<String> {
    let told = outcome(attempt).expect("an outcome has phases");
    let phases = told["phases"].as_array().expect("an outcome has phases");
    phases.iter().map(|phase| phase["phase"].as_str().expect("an outcome has phases").to_owned()).collect()
}
