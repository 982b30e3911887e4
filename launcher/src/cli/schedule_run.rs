//! `qlaunch schedule run-now`: an ordinary submission, and what got worse since the last one.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use qlaunch_shared::digest::sha256_of_file;
use qlaunch_shared::protocol::RunFolder;
use qlaunch_shared::sweep::Portfolio;
use qlaunch_shared::{Error, ErrorKind, Result};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use super::main::Context;
use super::schedule::wall_clock;
use crate::config::{Overrides, Settings, Surroundings};
use crate::schedule::{Civil, Due, Firing, Schedule, due, regressions};
use crate::ship::worker_binary;

/// Who asks for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A timer: only if it is due.
    ByTimer,
    /// A person: now.
    ByPerson,
}

/// Runs the sweep of a schedule. Ends with 0 where nothing had to be done or nothing got worse, with 10 where something did, else
/// with the code of the submission.
///
/// # Errors
/// A schedule that cannot be read, a submission that cannot be started.
pub fn run_now(folder: &Path, asked: Asked, context: &mut Context) -> Result<u8> {
    let schedule = Schedule::read(folder)?;
    let now = wall_clock()?;
    let moment = match (asked, due(&schedule.every, now, schedule.added, schedule.last(), schedule.paused)) {
        (Asked::ByPerson, _) => now,
        (Asked::ByTimer, Due::Run(moment)) => moment,
        (Asked::ByTimer, Due::Paused) => return tell(&schedule, now, &Told::idle("it is paused"), context),
        (Asked::ByTimer, Due::NotYet) => {
            return tell(&schedule, now, &Told::idle("nothing is due yet"), context);
        }
        (Asked::ByTimer, Due::Done(moment)) => {
            return tell(&schedule, moment, &Told::idle("it has run for this moment"), context);
        }
    };
    let path = folder.join("lock");
    let lock = File::create(&path).map_err(|error| Error::io("lock the schedule", &path, &error))?;
    let timer = asked == Asked::ByTimer;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        let told = Told::idle("skipped: the last run still goes on");
        remember(folder, &schedule, moment, timer, &told, String::new())?;
        return tell(&schedule, moment, &told, context);
    }
    let (told, worker) = submit(folder, &schedule, moment)?;
    remember(folder, &schedule, moment, timer, &told, worker)?;
    tell(&schedule, moment, &told, context)
}

/// What came of it.
struct Told {
    code: u8,
    run: Option<String>,
    notes: Vec<String>,
}

impl Told {
    fn idle(why: &str) -> Self {
        Self { code: 0, run: None, notes: vec![why.to_owned()] }
    }
}

/// Submits the sweep as a person would. What is unchanged is not run again: a run is named by model, recipes and data. The worker is
/// not part of that name, so that another one makes everything anew.
fn submit(folder: &Path, schedule: &Schedule, moment: Civil) -> Result<(Told, String)> {
    let around = Surroundings {
        project: schedule.project.clone(),
        variables: schedule.variables.clone(),
        ..Surroundings::gather()
    };
    let settings = Settings::load(&schedule.cluster, &around, &Overrides::default())?;
    let worker = sha256_of_file(&worker_binary(&settings, &around)?)?.0;
    let last = schedule.firings.iter().rfind(|firing| firing.run.is_some());
    let fresh = last.is_some_and(|firing| firing.worker != worker);
    let mut command = Command::new(&schedule.program);
    command.args(["submit", "--yes", "--format", "json", "--cluster", &schedule.cluster, "--runs"]);
    command.arg(&schedule.runs).arg(&schedule.sweep).current_dir(&schedule.project).envs(&schedule.variables);
    if fresh {
        command.arg("--fresh");
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(|error| {
        Error::input(format!("cannot submit the sweep: {error}"))
            .at(&schedule.program)
            .hint(format!("qlaunch was moved: remove the schedule `{}` and add it again", schedule.name))
    })?;
    let code = output.status.code().and_then(|code| u8::try_from(code).ok());
    let code = code.unwrap_or(ErrorKind::Interrupted.exit_code());
    let Ok(portfolio) = serde_json::from_slice::<Portfolio>(&output.stdout) else {
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let why = said["error"]["message"].as_str().unwrap_or("it did not end in a portfolio").to_owned();
        return Ok((Told { code, run: None, notes: vec![why] }, worker));
    };
    // Kept apart: a run that is made anew overwrites its own portfolio.
    let kept = folder.join("portfolio.json");
    let before: Option<Portfolio> =
        fs::read(&kept).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let notes = before.map(|before| regressions(&before, &portfolio)).unwrap_or_default();
    let dated = folder.join(format!("portfolio-{moment}.json"));
    for path in [&dated, &kept] {
        fs::write(path, &output.stdout).map_err(|error| Error::io("keep the portfolio", path, &error))?;
    }
    let code = if code == 0 && !notes.is_empty() { ErrorKind::Gate.exit_code() } else { code };
    Ok((Told { code, run: Some(portfolio.run), notes }, worker))
}

/// Adds to what the file says now: somebody may have paused it meanwhile.
fn remember(
    folder: &Path,
    schedule: &Schedule,
    moment: Civil,
    timer: bool,
    told: &Told,
    worker: String,
) -> Result<()> {
    let mut newest = Schedule::read(folder).unwrap_or_else(|_| schedule.clone());
    let (run, code, notes) = (told.run.clone(), told.code, told.notes.clone());
    newest.remember(Firing { moment, timer, worker, run, code, notes });
    newest.write(folder)
}

/// One line, which monitoring can read.
fn tell(schedule: &Schedule, moment: Civil, told: &Told, context: &mut Context) -> Result<u8> {
    let word = match (told.code, &told.run, told.notes.is_empty()) {
        (0, None, _) => "IDLE",
        (0, Some(_), _) => "OK",
        (_, Some(_), false) => "WORSE",
        _ => "FAILED",
    };
    if context.screen.json {
        context.screen.document(&json!({
            "schedule": schedule.name, "moment": moment, "is": word.to_lowercase(), "run": told.run, "code": told.code,
            "notes": told.notes,
        }))?;
        return Ok(told.code);
    }
    let folder =
        told.run.as_ref().map(|run| RunFolder(schedule.runs.join(run)).portfolio().display().to_string());
    let mut line = format!("{word} {} {moment}", schedule.name);
    for text in folder.iter().chain(&told.notes) {
        line.push_str(&format!(" · {text}"));
    }
    context.screen.data(&line)?;
    Ok(told.code)
}
