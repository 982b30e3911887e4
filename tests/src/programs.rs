//! Finds and runs the built programs, in an environment that a person's settings cannot reach.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// One finished call of a program.
#[derive(Debug)]
pub struct Call {
    /// The command line, for messages.
    pub line: String,
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it wrote as data.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Call {
    /// The one JSON document on stdout of a call that must have succeeded.
    pub fn json(&self) -> Value {
        self.assert_code(0);
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("stdout is not one JSON document ({e}):\n{}\n{self:#?}", self.stdout))
    }

    /// Fails with the whole story unless the exit code is `code`.
    #[track_caller]
    pub fn assert_code(&self, code: i32) {
        assert_eq!(
            self.code, code,
            "{}\n--- stdout\n{}\n--- stderr\n{}",
            self.line, self.stdout, self.stderr
        );
    }

    /// Fails unless the call was refused with `code`, naming each of `words` and giving a hint.
    #[track_caller]
    pub fn assert_refused(&self, code: i32, words: &[&str]) {
        self.assert_code(code);
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not named in:\n{}\n{}", self.line, self.stderr);
        }
        assert!(self.stderr.contains("hint:"), "no remedy is given in:\n{}\n{}", self.line, self.stderr);
    }
}

/// The folder of the built programs: the one that this test executable lies in, or its parent.
fn build_folder() -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    own.ancestors().skip(1).take(2).find(|folder| folder.join("qlaunch").is_file()).map_or_else(
        || {
            panic!(
                "no `qlaunch` beside {}; build the programs first: `cargo build --workspace`",
                own.display()
            )
        },
        Path::to_path_buf,
    )
}

/// A built program by name.
pub fn program(name: &str) -> PathBuf {
    let path = build_folder().join(name);
    assert!(
        path.is_file(),
        "{} is missing; build the programs first: `cargo build --workspace`",
        path.display()
    );
    path
}

/// `qlaunch` with a clean environment and a home folder of its own.
pub fn qlaunch(home: &Path) -> Command {
    let mut command = Command::new(program("qlaunch"));
    command.env_clear().env("HOME", home).env("NO_COLOR", "1").current_dir(crate::places::root());
    for name in ["PATH", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Runs a command to its end.
pub fn finish(mut command: Command) -> Call {
    let line = format!("{command:?}");
    let output = command.output().unwrap_or_else(|e| panic!("cannot start {line}: {e}"));
    let Output { status, stdout, stderr } = output;
    Call {
        line,
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Runs `qlaunch` with these arguments in a fresh home.
pub fn run<I, S>(arguments: I) -> Call
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut command = qlaunch(home.path());
    command.args(arguments);
    finish(command)
}

/// A `qlaunch quantize` call, with what most tests want as defaults.
#[derive(Debug, Clone)]
pub struct Quantize {
    /// Model folder.
    pub model: PathBuf,
    /// Recipe name or path.
    pub recipe: String,
    /// Calibration data.
    pub calibration: PathBuf,
    /// Output folder.
    pub out: PathBuf,
    /// Further flags.
    pub flags: Vec<String>,
}

impl Quantize {
    /// Quantizes `model` by `recipe` on the example calibration data.
    pub fn new(model: &Path, recipe: &str, out: &Path) -> Self {
        Self {
            model: model.to_path_buf(),
            recipe: recipe.to_owned(),
            calibration: crate::places::calibration_ids(),
            out: out.to_path_buf(),
            flags: Vec::new(),
        }
    }

    /// Uses other calibration data.
    #[must_use]
    pub fn calibration(mut self, path: &Path) -> Self {
        self.calibration = path.to_path_buf();
        self
    }

    /// Adds flags.
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Runs it to its end.
    pub fn run(&self) -> Call {
        let mut arguments: Vec<std::ffi::OsString> = vec!["quantize".into(), self.model.clone().into()];
        arguments.extend(["--recipe".into(), self.recipe.clone().into(), "--calib".into()]);
        arguments.extend([self.calibration.clone().into(), "--out".into(), self.out.clone().into()]);
        arguments.extend(["--yes", "--format", "json"].map(Into::into));
        arguments.extend(self.flags.iter().map(Into::into));
        run(arguments)
    }
}

/// `qlaunch eval` over the first `samples` windows of `seq_len` tokens; the JSON it prints.
pub fn evaluate(checkpoint: &Path, data: &Path, seq_len: usize, samples: Option<usize>) -> Value {
    let mut arguments: Vec<std::ffi::OsString> =
        vec!["eval".into(), checkpoint.into(), "--data".into(), data.into()];
    arguments.extend(["--seq-len".into(), seq_len.to_string().into(), "--format".into(), "json".into()]);
    if let Some(samples) = samples {
        arguments.extend(["--samples".into(), samples.to_string().into()]);
    }
    run(arguments).json()
}

/// The perplexity in what `qlaunch eval` printed.
pub fn perplexity(evaluation: &Value) -> f64 {
    evaluation["perplexity"].as_f64().unwrap_or_else(|| panic!("no `perplexity` in {evaluation}"))
}

/// A candidate's row of a portfolio.
pub fn row<'a>(portfolio: &'a Value, candidate: &str) -> &'a Value {
    let rows = portfolio["rows"].as_array().unwrap_or_else(|| panic!("no rows: {portfolio:#}"));
    let found = rows.iter().find(|row| row["candidate"] == candidate);
    found.unwrap_or_else(|| panic!("no {candidate}: {portfolio:#}"))
}
