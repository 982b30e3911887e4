//! A world for the real program: a folder, a sweep over the example model, and a worker that only pretends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// A folder in which `qlaunch` runs with nothing of the real home or environment.
pub struct World {
    pub folder: tempfile::TempDir,
}

/// What a command printed and how it ended.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

const SWEEP: &str = "\
version: 1
name: tiny
model: MODEL
objective: memory
acceptance:
  perplexity: {within: 1%, of: bf16}
calibration: {data: calib.txt}
evaluate: {data: calib.txt, samples: 1}
baselines: [bf16]
candidates:
  - {name: first, recipe: general/ptq/fp8_default-kv_fp8}
  - {name: second, recipe: general/ptq/nvfp4_default-kv_fp8}
";

impl World {
    /// A world with a sweep of one baseline and two candidates.
    pub fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        let worker = world.path("worker.sh");
        fs::write(&worker, include_str!("worker.sh")).unwrap();
        fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(world.path("fake")).unwrap();
        fs::write(world.path("calib.txt"), "some text").unwrap();
        fs::write(world.path("sweep.yaml"), SWEEP.replace("MODEL", &model().display().to_string())).unwrap();
        world
    }

    /// A path in the world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Tells the pretending worker something about a candidate.
    pub fn tell(&self, file: &str, text: &str) {
        fs::write(self.path("fake").join(file), text).unwrap();
    }

    /// Names of the jobs that a worker was started for, in order.
    pub fn ran(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("fake/ran")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The program, ready to be started in this world.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qlaunch"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("TMPDIR", self.folder.path())
            .env("FAKE", self.path("fake"))
            .env("QLAUNCH_WORKER", self.path("worker.sh"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.read(self.command(arguments).output().unwrap())
    }

    /// Starts the program and waits until a worker runs for a job.
    pub fn start_until(&self, arguments: &[&str], job: &str) -> Child {
        let child = self.command(arguments).spawn().unwrap();
        wait_for(|| self.ran().iter().any(|ran| ran == job));
        child
    }

    /// What a program that was started printed, with the world's own folder written as `WORLD`.
    pub fn read(&self, output: Output) -> Ran {
        let folder = self.folder.path().display().to_string();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&folder, "WORLD");
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// The only run's folder.
    pub fn run_folder(&self) -> PathBuf {
        let mut runs: Vec<PathBuf> =
            fs::read_dir(self.path("runs")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs.remove(0)
    }
}

/// The example model; only its headers are read.
pub fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-llama").canonicalize().unwrap()
}

/// Waits until something holds, and fails after a time in which it should have.
pub fn wait_for(holds: impl Fn() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it never came true");
}

/// Sends a signal by its name.
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}
