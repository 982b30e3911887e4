//! What is different from the last run of a sweep: what a dry run shows besides its plan.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use qlaunch_shared::protocol::RunFolder;
use serde::Serialize;
use serde_json::Value;

use crate::plan::{PlannedJob, PlannedRun, Saved};

/// Most differences that are told of one job.
const MOST: usize = 8;

/// What a submission changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The last run.
    pub run: String,
    /// Whether it is this very run, so that what is done there is not run again.
    pub same: bool,
    /// Jobs that are new, gone or changed, in the order of the plan.
    pub changes: Vec<Change>,
}

/// What is different about one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its name.
    pub job: String,
    /// `new`, `gone` or `changed`.
    pub is: &'static str,
    /// Dotted keys of its spec with the values before and now.
    pub keys: Vec<(String, String, String)>,
}

/// Compares with the newest run of the same sweep on the same cluster below `runs`; none if there is none.
pub fn compare_with_last(run: &PlannedRun, sweep: &Path, cluster: &str, runs: &Path) -> Option<Comparison> {
    let sweep = sweep.canonicalize().ok()?;
    let folders = std::fs::read_dir(runs).ok()?.flatten().map(|entry| entry.path());
    let submitted = |folder: PathBuf| -> Option<(SystemTime, Saved)> {
        let written = RunFolder(folder.clone()).journal().metadata().ok()?.modified().ok()?;
        let saved = Saved::read(&folder).ok()?;
        (saved.sweep == sweep && saved.cluster == cluster).then_some((written, saved))
    };
    let (_, last) = folders.filter_map(submitted).max_by_key(|(written, _)| *written)?;
    Some(compare(&last.run, run))
}

fn compare(last: &PlannedRun, run: &PlannedRun) -> Comparison {
    let mut changes = Vec::new();
    for job in &run.jobs {
        match last.jobs.iter().find(|other| other.name == job.name) {
            None => changes.push(Change { job: job.name.clone(), is: "new", keys: Vec::new() }),
            Some(other) => {
                let keys = differences(other, job);
                if !keys.is_empty() {
                    changes.push(Change { job: job.name.clone(), is: "changed", keys });
                }
            }
        }
    }
    let gone = last.jobs.iter().filter(|old| !run.jobs.iter().any(|job| job.name == old.name));
    changes.extend(gone.map(|old| Change { job: old.name.clone(), is: "gone", keys: Vec::new() }));
    Comparison { run: last.name.clone(), same: last.identity == run.identity, changes }
}

fn differences(last: &PlannedJob, job: &PlannedJob) -> Vec<(String, String, String)> {
    let spell = |job: &PlannedJob| {
        let mut spec = serde_json::to_value(&job.spec).unwrap_or_default();
        // Names of runs differ whenever anything does.
        if let Some(fields) = spec.as_object_mut() {
            fields.remove("run");
            if let Some(evaluate) = fields.get_mut("evaluate").and_then(Value::as_object_mut) {
                evaluate.remove("reference");
            }
        }
        spec
    };
    let mut keys = Vec::new();
    walk("", &spell(last), &spell(job), &mut keys);
    keys
}

fn walk(path: &str, old: &Value, new: &Value, keys: &mut Vec<(String, String, String)>) {
    if old == new {
        return;
    }
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (old, new) {
        (Value::Object(before), Value::Object(now)) => {
            let mut names: Vec<&String> = before.keys().chain(now.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let value = |fields: &serde_json::Map<String, Value>| {
                    fields.get(name).cloned().unwrap_or(Value::Null)
                };
                walk(&below(name), &value(before), &value(now), keys);
            }
        }
        (Value::Array(before), Value::Array(now)) if before.len() == now.len() => {
            for (index, (old, new)) in before.iter().zip(now).enumerate() {
                walk(&below(&index.to_string()), old, new, keys);
            }
        }
        _ => keys.push((path.to_owned(), short(old), short(new))),
    }
}

fn short(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(60) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        }
    }
}

impl Comparison {
    /// Lines for people.
    pub fn lines(&self) -> Vec<String> {
        if self.changes.is_empty() {
            let what = if self.same {
                "nothing is different: what is done there is not run again"
            } else {
                "jobs are the same, but model, data or qlaunch are not: everything runs again"
            };
            return vec![format!("compared with {}: {what}", self.run)];
        }
        let mut lines = vec![format!("compared with {}:", self.run)];
        for change in &self.changes {
            lines.push(format!("  {} is {}", change.job, change.is));
            let keys = change.keys.iter().take(MOST);
            lines.extend(keys.map(|(key, old, new)| format!("    {key}: {old} → {new}")));
            if change.keys.len() > MOST {
                lines.push(format!("    and {} more", change.keys.len() - MOST));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_named_by_their_keys() {
        let old = json!({"a": {"b": 1, "c": [1, 2]}, "d": "x"});
        let new = json!({"a": {"b": 2, "c": [1, 3]}, "e": true});
        let mut keys = Vec::new();
        walk("", &old, &new, &mut keys);
        let keys: Vec<String> = keys.iter().map(|(key, old, new)| format!("{key}: {old} → {new}")).collect();
        assert_eq!(keys, ["a.b: 1 → 2", "a.c.1: 2 → 3", "d: x → nothing", "e: nothing → true"]);
    }
}
