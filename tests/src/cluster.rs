//! A real cluster that `tests/cluster/up.sh` started: projects that use it, and the faults that befall it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::places::{calibration_ids, evaluation_ids, existing, read_json, tiny_llama};
use crate::programs::{Call, finish, program, qlaunch, row};

/// The cluster that this machine runs.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Folder of its state.
    pub folder: PathBuf,
    /// The user that jobs belong to.
    pub user: String,
}

impl Cluster {
    /// The cluster whose `env.sh` was sourced.
    pub fn running() -> Self {
        let variable = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run tests/cluster/run.sh"))
        };
        Self { folder: variable("QLAUNCH_TEST_CLUSTER").into(), user: variable("QLAUNCH_TEST_USER") }
    }

    /// Runs a shell line as root with the cluster's SLURM; what it prints.
    pub fn root(&self, line: &str) -> String {
        let mut command = Command::new("bash");
        command.args(["-c", line]).env("SLURM_CONF", self.folder.join("etc/slurm.conf"));
        command.env("cluster", &self.folder);
        let output = command.output().expect("bash runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Starts what died, and lets drained nodes work again.
    pub fn mend(&self) {
        let up = existing("tests/cluster/up.sh");
        let output = Command::new(up).arg(&self.folder).output().expect("up.sh runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The user's startup file, which every ssh command reads; an empty text removes it.
    pub fn set_bashrc(&self, text: &str) {
        let path = self.home().join(".bashrc");
        match text.is_empty() {
            true => drop(fs::remove_file(path)),
            false => fs::write(path, text).expect("a startup file"),
        }
    }

    /// The user's home folder.
    pub fn home(&self) -> PathBuf {
        PathBuf::from(self.root(&format!("getent passwd {} | cut -d: -f6", self.user)))
    }

    /// How many jobs SLURM has had of each name; of the name of an array, how many of each index.
    pub fn jobs(&self) -> Vec<(String, usize)> {
        let names = self.root(
            "squeue -h -r -a -t all -o '%j %i' | sed -n -e 's/^\\(ql-[^ ]*\\) [0-9]*\\(_[0-9]*\\)*$/\\1\\2/p' | sort | uniq -c",
        );
        let row = |line: &str| {
            let (count, name) = line.trim().split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        };
        names.lines().filter_map(row).collect()
    }

    /// No job name stands twice in the queue: nothing was submitted twice.
    pub fn assert_nothing_twice(&self) {
        for (name, count) in self.jobs() {
            assert_eq!(count, 1, "{name} was submitted {count} times");
        }
    }
}

/// A project with a profile, a sweep and runs of its own.
#[derive(Debug)]
pub struct Project {
    folder: tempfile::TempDir,
    cluster: Option<Cluster>,
}

/// How large a sweep is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// A baseline and one candidate, seconds.
    Small,
    /// The same with more to measure: a job that lasts long enough to be hit.
    Long,
    /// And with so much that the scheduler has time to think about it.
    Longest,
}

impl Project {
    /// A project for the cluster; `profile` is added to a profile that suits tests.
    pub fn on(cluster: &Cluster, size: Size, profile: &str) -> Self {
        let project = Self::new(Some(cluster.clone()), size);
        project.write_profile("login", profile);
        project
    }

    /// A project whose cluster `test` is described whole by `profile`.
    pub fn described(size: Size, profile: &str) -> Self {
        let project = Self::new(None, size);
        project.describe(profile);
        project
    }

    /// Describes the cluster `test` anew.
    pub fn describe(&self, profile: &str) {
        fs::create_dir_all(self.path("clusters")).expect("a folder");
        fs::write(self.path("clusters/test.toml"), profile).expect("a profile");
    }

    fn new(cluster: Option<Cluster>, size: Size) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let project = Self { folder, cluster };
        let (samples, repeat) = match size {
            Size::Small => (2, ""),
            Size::Long => (16, "resources: {threads: 1}\n"),
            Size::Longest => (96, "resources: {threads: 1}\n"),
        };
        let text = format!(
            "version: 1\nname: cluster-test\nmodel: {}\nobjective: memory\nacceptance:\n  perplexity: {{within: 50%, of: bf16}}\n\
             calibration: {{data: {}, batch_size: 8}}\nevaluate: {{data: {}, samples: {samples}, seq_len: 512, batch_size: 8}}\n\
             baselines: [bf16]\ncandidates:\n  - general/ptq/fp8_default-kv_fp8\n{repeat}",
            tiny_llama().display(),
            calibration_ids().display(),
            evaluation_ids().display(),
        );
        fs::write(project.path("sweep.yaml"), text).expect("a sweep file");
        project
    }

    /// Has further recipes tried, which become alike candidates; and whatever else the sweep file is to say.
    pub fn add_candidates(&self, recipes: &[&str], more: &str) {
        let path = self.path("sweep.yaml");
        let text = fs::read_to_string(&path).expect("a sweep file");
        let first = "  - general/ptq/fp8_default-kv_fp8\n";
        let lines: String = recipes.iter().map(|recipe| format!("  - {recipe}\n")).collect();
        assert!(text.contains(first), "{text}");
        fs::write(path, text.replace(first, &format!("{first}{lines}")) + more).expect("a sweep file");
    }

    /// How many tries of a job have left a folder.
    pub fn tries(&self, job: &str) -> usize {
        fs::read_dir(self.site().join(job).join("attempts")).map_or(0, Iterator::count)
    }

    /// SLURM's id of the newest try of a job, once it has one.
    pub fn slurm_id(&self, job: &str) -> String {
        self.wait_for("submitted", job)["entry"]["handle"]["slurm"]["id"].as_str().expect("an id").to_owned()
    }

    /// Writes the profile anew, for a host of the cluster's ssh configuration.
    pub fn write_profile(&self, host: &str, more: &str) {
        let cluster = self.cluster.as_ref().expect("a project on a cluster");
        let config = cluster.folder.join("ssh/config");
        let text = format!(
            "kind = \"slurm\"\nworker_build = \"host\"\npoll_seconds = 1\nworkspace = \"~/qlaunch-tests/{}\"\n\
             [ssh]\nhost = \"{host}\"\nconfig = \"{}\"\n[slurm]\ntime = \"00:10:00\"\nlag_seconds = 3\n{more}",
            self.folder.path().file_name().expect("a name").to_string_lossy().trim_start_matches('.'),
            config.display()
        );
        self.describe(&text);
    }

    /// A path of the project.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `qlaunch` in the project.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = qlaunch(self.folder.path());
        command
            .current_dir(self.folder.path())
            .env("QLAUNCH_WORKER", program("qlaunch-worker"))
            .args(arguments);
        // How podman finds its settings.
        for name in ["CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    /// Runs `qlaunch` in the project to its end.
    pub fn run(&self, arguments: &[&str]) -> Call {
        finish(self.command(arguments))
    }

    /// Submits the sweep and waits for its portfolio.
    pub fn submit(&self) -> Call {
        self.run(&["submit", "--cluster", "test", "--format", "json", "sweep.yaml"])
    }

    /// Submits the sweep and lets it run.
    pub fn start(&self) -> Running {
        let mut command = self.command(&["submit", "--cluster", "test", "--format", "json", "sweep.yaml"]);
        let log = self.path("launcher.log");
        let file = fs::File::options().create(true).append(true).open(&log).expect("a log");
        let out = fs::File::create(self.path("portfolio.out")).expect("an output");
        Running {
            child: command.stdout(out).stderr(file).stdin(Stdio::null()).spawn().expect("qlaunch starts"),
            log,
        }
    }

    /// The run's folder, once there is one.
    pub fn run_folder(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(self.path("runs")).ok()?.flatten();
        let runs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("cluster-test-"));
        // Another one is what the same sweep makes on this machine, submitted later.
        runs.min_by_key(|entry| entry.metadata().and_then(|found| found.created()).ok())
            .map(|entry| entry.path())
    }

    /// The run's portfolio, as its folder has it.
    pub fn portfolio(&self) -> Value {
        read_json(&self.run_folder().expect("a run").join("portfolio.json"))
    }

    /// The lines of the journal.
    pub fn journal(&self) -> Vec<Value> {
        let path = self.run_folder().map(|folder| folder.join("journal.jsonl"));
        let text = path.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until the journal has an entry of a kind about a job; returns it.
    pub fn wait_for(&self, kind: &str, job: &str) -> Value {
        let is = |line: &&Value| line["entry"]["is"] == kind && line["entry"]["job"] == job;
        wait(&format!("`{kind}` of {job}"), || self.journal().iter().rfind(is).cloned())
    }

    /// Waits until a job's worker says so in its log on the cluster.
    pub fn wait_for_phase(&self, job: &str, attempt: &str, phase: &str) {
        let folder = self.site().join(job).join("attempts").join(attempt);
        wait(&format!("{phase} of {job}"), || {
            let text = fs::read_to_string(folder.join("events.jsonl")).ok()?;
            text.contains(&format!("\"phase\":\"{phase}\"")).then_some(())
        });
    }

    /// The run's folder on the cluster, whose file system is this machine's.
    pub fn site(&self) -> PathBuf {
        wait("run.json", || self.known_site())
    }

    fn known_site(&self) -> Option<PathBuf> {
        let saved = fs::read(self.run_folder()?.join("run.json")).ok()?;
        let saved: Value = serde_json::from_slice(&saved).ok()?;
        Some(PathBuf::from(saved["run"]["site"].as_str()?))
    }

    /// The project's own folder for runs, workers and a store on the cluster, once it has a run.
    pub fn workspace(&self) -> Option<PathBuf> {
        let folder = self.known_site()?.ancestors().nth(2)?.to_path_buf();
        folder.parent()?.ends_with("qlaunch-tests").then_some(folder)
    }

    /// Everything is done, nothing was submitted twice, and the candidate is what a local run makes of it.
    pub fn assert_done(&self, portfolio: &Value) {
        for name in ["bf16", "fp8_default-kv_fp8"] {
            let row = row(portfolio, name);
            assert!(row["perplexity"].as_f64().is_some(), "{name} was not measured: {row:#}");
        }
        if let Some(cluster) = &self.cluster {
            cluster.assert_nothing_twice();
        }
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if let Some(cluster) = &self.cluster {
            // Jobs that a failed test leaves would hold the nodes.
            cluster.root(&format!(
                "squeue -h -o '%i %j' | grep ' ql-' | cut -d' ' -f1 | xargs -r scancel -u {}",
                cluster.user
            ));
        }
        // A worker and a store are 100 MB, which whoever looks for a failure may want.
        if let (false, Some(workspace)) = (std::thread::panicking(), self.workspace()) {
            drop(fs::remove_dir_all(workspace));
        }
    }
}

/// A launcher at work.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Kills it without a word.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Sends a signal and waits for its end; the exit code.
    pub fn signal(&mut self, name: &str) -> i32 {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
        self.finish()
    }

    /// Waits for its end; the exit code.
    pub fn finish(&mut self) -> i32 {
        let end = Instant::now() + Duration::from_secs(300);
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < end, "it does not end:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it is a child").is_none()
    }

    /// What it said on stderr.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until something is there.
pub fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "there is still no {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The bytes of every file of a folder, by name.
pub fn files_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<(String, Vec<u8>)> = entries
        .flatten()
        .filter(|entry| entry.path().is_file())
        .map(|entry| {
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a file"))
        })
        .collect();
    files.sort();
    files
}
