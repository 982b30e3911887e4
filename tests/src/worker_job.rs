//! One job of the worker without a launcher: its spec as a launcher would write it, and any number of ranks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::programs::{finish, program, qlaunch};

/// A spec in a folder of its own, and attempts beside it.
#[derive(Debug)]
pub struct WorkerJob {
    folder: tempfile::TempDir,
    attempts: u32,
}

impl WorkerJob {
    /// Quantizes `model` by `recipe` on a few samples, and measures it against its source; nothing is kept.
    pub fn new(model: &Path, recipe: &str) -> Self {
        Self::with_store(model, recipe, None)
    }

    /// The same with a store.
    pub fn with_store(model: &Path, recipe: &str, store: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sweep = folder.path().join("sweep.yaml");
        let place = |path: PathBuf| path.display().to_string();
        let text = json!({
            "version": 1, "name": "job", "model": model, "objective": "memory",
            "acceptance": {"perplexity": {"within": "90%", "of": "bf16"}},
            "calibration": {
                "data": place(crate::places::calibration_ids()), "samples": 18, "seq_len": 48, "batch_size": 8,
            },
            "evaluate": {
                "data": place(crate::places::evaluation_ids()), "samples": 10, "seq_len": 32, "batch_size": 4,
            },
            "baselines": ["bf16"],
            "candidates": [recipe],
        });
        std::fs::write(&sweep, text.to_string()).expect("a file can be written");
        let mut command = qlaunch(folder.path());
        command.args(["submit", "--dry-run", "--format", "json", "--runs"]).arg(folder.path()).arg(&sweep);
        let planned = finish(command).json();
        let jobs = planned["jobs"].as_array().expect("a plan has jobs");
        let candidate = jobs.iter().find(|job| !job["spec"]["quantize"].is_null());
        let mut spec = candidate.unwrap_or_else(|| panic!("no candidate in {planned:#}"))["spec"].clone();
        spec["evaluate"]["reference"] = json!({ "model": model });
        spec["store"] = store.map_or(Value::Null, |store| json!(store));
        std::fs::write(folder.path().join("spec.json"), spec.to_string()).expect("a file can be written");
        Self { folder, attempts: 0 }
    }

    /// Takes measuring out of the job.
    pub fn without_evaluation(self) -> Self {
        self.changed(|spec| spec["evaluate"] = Value::Null)
    }

    /// Has fewer samples calibrated on, and fewer windows measured.
    pub fn with_samples(self, samples: usize, windows: usize) -> Self {
        self.changed(|spec| {
            spec["quantize"]["calibration"]["samples"] = json!(samples);
            spec["evaluate"]["tokens"]["samples"] = json!(windows);
        })
    }

    /// Has everything computed on a numeric path.
    pub fn on(self, path: &str) -> Self {
        self.changed(|spec| spec["resources"]["numeric_path"] = json!(path))
    }

    /// With something else in its spec.
    pub fn changed(self, change: impl FnOnce(&mut Value)) -> Self {
        let path = self.folder.path().join("spec.json");
        let mut spec = crate::places::read_json(&path);
        change(&mut spec);
        std::fs::write(path, spec.to_string()).expect("a file can be written");
        self
    }

    /// The folder of another attempt.
    pub fn attempt(&mut self) -> PathBuf {
        self.attempts += 1;
        self.folder.path().join(self.attempts.to_string())
    }

    /// The command of an attempt.
    pub fn command(&self, attempt: &Path, flags: &[&str]) -> Command {
        let mut command = Command::new(program("qlaunch-worker"));
        command.arg("run").arg("--spec").arg(self.folder.path().join("spec.json"));
        command.arg("--attempt").arg(attempt).args(flags);
        // The ranks of this job, whatever batch system runs the test.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SLURM_"))
        {
            command.env_remove(name);
        }
        command
    }

    /// Runs an attempt to its end, which must be a good one; its folder.
    pub fn run(&mut self, flags: &[&str]) -> PathBuf {
        let attempt = self.attempt();
        finish(self.command(&attempt, flags)).assert_code(0);
        attempt
    }

    /// Starts an attempt whose talk is kept in `log` in its folder.
    pub fn start(&self, attempt: &Path, flags: &[&str]) -> Child {
        std::fs::create_dir_all(attempt).expect("a folder can be made");
        let log = std::fs::File::create(attempt.join("log")).expect("a file can be made");
        let mut command = self.command(attempt, flags);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().expect("the worker starts")
    }
}

/// Every file of a folder, by name.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|e| panic!("cannot list {}: {e}", folder.display()));
    entries
        .map(|entry| {
            let path = entry.expect("an entry can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, std::fs::read(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display())))
        })
        .collect()
}

/// What an attempt's outcome says, or `None` without one.
pub fn outcome(attempt: &Path) -> Option<Value> {
    let text = std::fs::read(attempt.join("outcome.json")).ok()?;
    Some(serde_json::from_slice(&text).expect("an outcome is JSON or not there"))
}
