//! `qlaunch status`: how the jobs of a run are, without touching them.

use anstyle::Style;
use clap::Args;
use qlaunch_shared::protocol::Level;
use qlaunch_shared::{Error, ErrorKind, Result};
use serde_json::json;

use super::main::Context;
use super::runs::RunChoice;
use super::watch::setup;
use crate::backend::Poll;
use crate::engine::{Job, Stage, fold};
use crate::journal::{Ending, Handle, Process};
use crate::session::{Opening, glance};
use crate::ui::{Column, Table, note};

/// Tells how the jobs of a run are. Nothing is changed by it.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    choice: RunChoice,
}

/// How one job is.
struct Standing {
    state: &'static str,
    note: String,
}

/// Runs the command.
pub fn run(args: &StatusArgs, context: &mut Context) -> Result<u8> {
    let known = args.choice.open(&context.around)?;
    let lines = known.journal()?;
    let state = fold(&lines);
    let running = state.jobs.iter().any(|job| matches!(job.stage, Stage::Running { .. }));
    let mut polls = Vec::new();
    if running {
        let asked = setup(&known, &context.around, Opening::Attach)
            .and_then(|setup| glance(&known.saved.run, &setup, &lines, &state));
        match asked {
            Ok(answers) => polls = answers,
            Err(error) if matches!(error.kind, ErrorKind::Unreachable | ErrorKind::Login) => {
                let text = format!("{}; this is what was known last", error.message);
                context.screen.say(&note(Level::Warning, &text));
            }
            Err(error) => return Err(error),
        }
    }
    let poll_of = |job: &Job| polls.iter().find(|(name, _)| *name == job.name).map(|(_, poll)| poll);
    let jobs: Vec<(&Job, Standing)> =
        state.jobs.iter().map(|job| (job, standing(job, poll_of(job)))).collect();
    if context.screen.json {
        let rows: Vec<serde_json::Value> = jobs
            .iter()
            .map(|(job, standing)| {
                json!({
                    "candidate": job.name, "baseline": job.baseline, "state": standing.state,
                    "attempt": job.attempt, "handle": handle(job), "note": standing.note,
                })
            })
            .collect();
        context.screen.document(&json!({
            "run": known.saved.run.name, "cluster": known.saved.cluster, "jobs": rows,
        }))?;
        return Ok(0);
    }
    let mut table = Table::new(vec![
        Column::left("candidate"),
        Column::left("state"),
        Column::right("attempt"),
        Column::left("job"),
        Column::left("note"),
    ]);
    for (job, standing) in jobs {
        let cells = vec![
            job.name.clone(),
            standing.state.to_owned(),
            job.attempt.to_string(),
            handle(job).unwrap_or_default(),
            standing.note,
        ];
        table.row(cells, Style::new());
    }
    let drawn = table.draw(context.screen.width);
    context.screen.data(&format!("{} on {}\n{}", known.saved.run.name, known.saved.cluster, drawn.text))?;
    Ok(0)
}

fn handle(job: &Job) -> Option<String> {
    match &job.stage {
        Stage::Running { handle: Handle::Slurm { id, .. }, .. } => Some(id.clone()),
        Stage::Running { handle: handle @ (Handle::Process(_) | Handle::Processes(_)), .. } => {
            let word = |process: &Process| match &process.host {
                Some(host) => format!("process {} on {host}", process.pid),
                None => format!("process {}", process.pid),
            };
            Some(handle.processes().iter().map(word).collect::<Vec<_>>().join(", "))
        }
        Stage::Running { handle: Handle::Container { id, .. }, .. } => {
            Some(format!("container {}", id.get(..12).unwrap_or(id)))
        }
        _ => None,
    }
}

fn standing(job: &Job, poll: Option<&Poll>) -> Standing {
    let said = |state, note: &str| Standing { state, note: note.to_owned() };
    match (&job.stage, poll) {
        (Stage::Waiting, _) => said("waiting", ""),
        (Stage::Submitting, _) => said("unclear", "the launcher died while it was handed over"),
        (
            Stage::Running { handle: Handle::Process(_) | Handle::Processes(_), .. },
            Some(Poll::Running { waiting: Some(silent), .. }),
        ) => said("unclear", silent),
        (Stage::Running { .. }, Some(Poll::Running { waiting: Some(reason), .. })) => said("queued", reason),
        (Stage::Running { .. }, Some(Poll::Running { restart: 0, .. }) | None) => said("running", ""),
        (Stage::Running { .. }, Some(Poll::Running { restart, .. })) => {
            said("running", &format!("started again by the scheduler ({restart})"))
        }
        (Stage::Running { .. }, Some(Poll::Ended { ending, .. })) => match ending {
            Ending::Done => said("done", "not fetched yet: `qlaunch watch`"),
            Ending::Interrupted => said("stopped", "at a safe point: `qlaunch watch` goes on"),
            Ending::Failed { error } => said(failed(error), &error.message),
            Ending::Lost { error, .. } | Ending::Unstarted { error } => said("lost", &error.message),
        },
        (Stage::Stopped { error }, _) => {
            said("stopped", error.as_ref().map_or("at a safe point", |error| &error.message))
        }
        (Stage::Done | Stage::Accepted, _) => said("done", ""),
        (Stage::Failed { error }, _) => said(failed(error), &error.message),
    }
}

/// A job that a gate ended has given its answer.
fn failed(error: &Error) -> &'static str {
    if error.kind == ErrorKind::Gate { "rejected" } else { "failed" }
}
