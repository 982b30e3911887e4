//! Collects what came of a run's jobs, for the judgement.

use std::fs;
use std::path::{Path, PathBuf};

use qlaunch_shared::protocol::{Event, EventBody, JobFolder, Level, Outcome, RunFolder, Status};
use qlaunch_shared::sweep::{Entrant, Portfolio, Ran};
use qlaunch_shared::{Error, ErrorKind, Result};

use crate::engine::{Job, Stage, State};
use crate::journal::{Entry, Journal};
use crate::plan::{PlannedJob, PlannedRun};

/// What came of each job, in the run's order.
///
/// # Errors
/// Outcomes that were there a moment ago and cannot be read now.
pub fn entrants(run: &PlannedRun, cluster: &str, state: &State) -> Result<Vec<Entrant>> {
    run.jobs
        .iter()
        .map(|planned| {
            let folder = RunFolder(run.folder.clone()).job(&planned.name);
            let (ran, notes) = match state.job(&planned.name) {
                Some(Job { stage: Stage::Accepted, attempt, .. }) => {
                    (Ran::Ended(Box::new(outcome(&folder, *attempt)?)), warnings(&folder, *attempt))
                }
                Some(Job { stage: Stage::Failed { error }, attempt, .. }) => {
                    // What was found out before a gate ended it is there to be read.
                    let known = (error.kind == ErrorKind::Gate).then(|| outcome(&folder, *attempt).ok());
                    let ran = match known.flatten() {
                        Some(outcome) => Ran::Ended(Box::new(outcome)),
                        None => Ran::Failed(error.clone()),
                    };
                    (ran, warnings(&folder, *attempt))
                }
                _ => (Ran::Unfinished, Vec::new()),
            };
            let (name, recipe) = (planned.name.clone(), planned.recipe.clone());
            let checkpoint = checkpoint(planned, run, cluster, &ran);
            Ok(Entrant { name, recipe, checkpoint, notes, ran })
        })
        .collect()
}

/// Where the results of a job lie: a path here, or `CLUSTER:PATH`. Those of one that a gate ended stay in its attempt's folder;
/// any other that did not end well has none.
fn checkpoint(planned: &PlannedJob, run: &PlannedRun, cluster: &str, ran: &Ran) -> Option<PathBuf> {
    let Ran::Ended(outcome) = ran else { return None };
    let there = RunFolder(run.site.clone()).job(&planned.name).checkpoint();
    let path = match (&planned.spec.quantize, outcome.status) {
        (_, Status::Failed) => outcome.checkpoint.as_ref()?.path.clone(),
        (None, _) => planned.spec.model.clone(),
        (Some(quantize), _) => quantize.out.clone().unwrap_or(there),
    };
    match run.site == run.folder {
        true => Some(path),
        false => Some(PathBuf::from(format!("{cluster}:{}", path.display()))),
    }
}

/// Reads how an attempt ended.
///
/// # Errors
/// No outcome, or one that cannot be read.
pub fn outcome(folder: &JobFolder, attempt: u32) -> Result<Outcome> {
    let path = folder.attempt(attempt).outcome();
    let bytes = fs::read(&path).map_err(|error| Error::io("read the outcome", &path, &error))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::input(format!("the outcome cannot be read: {error}")).at(&path))
}

/// The warnings of an attempt, each once. Lines that cannot be read were reported while they were followed.
fn warnings(folder: &JobFolder, attempt: u32) -> Vec<String> {
    let text = fs::read_to_string(folder.attempt(attempt).events()).unwrap_or_default();
    let mut warnings: Vec<String> = Vec::new();
    for event in text.lines().filter_map(|line| serde_json::from_str::<Event>(line).ok()) {
        if let EventBody::Note { level: Level::Warning, message } = event.body
            && !warnings.contains(&message)
        {
            warnings.push(message);
        }
    }
    warnings
}

/// Writes `portfolio.json` whole, and notes it.
///
/// # Errors
/// A disk that is full or gone.
pub fn write_portfolio(folder: &Path, portfolio: &Portfolio, journal: &mut Journal, at: u64) -> Result<()> {
    let path = RunFolder(folder.to_owned()).portfolio();
    let text = serde_json::to_vec_pretty(portfolio)
        .map_err(|error| Error::bug(format!("cannot spell the portfolio: {error}")))?;
    let partial = path.with_extension("json.partial");
    fs::write(&partial, text)
        .and_then(|()| fs::rename(&partial, &path))
        .map_err(|error| Error::io("write the portfolio", &path, &error))?;
    journal.append(at, Entry::Judged { recommended: portfolio.recommendation.candidate.clone() })?;
    Ok(())
}
