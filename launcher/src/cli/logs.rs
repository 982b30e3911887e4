//! `qlaunch logs`: what a job printed, from where it runs, and what it goes on to print.

use std::time::Duration;

use clap::Args;
use qlaunch_shared::protocol::{Level, RunFolder};
use qlaunch_shared::{Error, ErrorKind, Result};

use super::main::Context;
use super::runs::{KnownRun, RunChoice, read_journal};
use super::watch::check_names;
use crate::engine::{Job, Stage, fold};
use crate::session::{Site, block_on};
use crate::transport::{Transport, Wanted};
use crate::ui::note;

/// Bytes that are fetched at a time.
const CHUNK: u64 = 1 << 20;

/// Prints the log of a job's newest attempt.
#[derive(Debug, Args)]
pub struct LogsArgs {
    #[command(flatten)]
    choice: RunChoice,
    /// Candidate or baseline; the first that runs, else the first that failed, if not given.
    #[arg(long, value_name = "NAME")]
    candidate: Option<String>,
    /// Goes on until the job is over.
    #[arg(long, short)]
    follow: bool,
}

/// Runs the command.
pub fn run(args: &LogsArgs, context: &mut Context) -> Result<u8> {
    let known = args.choice.open(&context.around)?;
    check_names(args.candidate.as_slice(), &known)?;
    let lines = known.journal()?;
    let state = fold(&lines);
    let job = chosen(args, &state.jobs, &known)?;
    let folder = RunFolder(known.saved.run.site.clone()).job(&job.name);
    let log = folder.attempt(job.attempt).log();
    block_on(async {
        let site = Site::open(&known.settings, &context.around).await?;
        let mut offset = 0;
        let mut lost = false;
        loop {
            // Asked first, read second: what was said before the end is printed.
            let over = is_over(&known, &job.name)?;
            let wanted = [Wanted { path: log.clone(), from: offset, limit: CHUNK }];
            let mut more = false;
            match site.host.read_many(&wanted).await {
                Ok(mut chunks) => {
                    lost = false;
                    if let Some(chunk) = chunks.pop().flatten() {
                        // A log that became shorter was begun anew.
                        offset = if chunk.size < offset { 0 } else { offset + chunk.bytes.len() as u64 };
                        more = offset < chunk.size;
                        context.screen.raw(&chunk.bytes)?;
                    }
                }
                Err(error) if error.kind == ErrorKind::Unreachable && args.follow => {
                    if !std::mem::replace(&mut lost, true) {
                        context
                            .screen
                            .say(&note(Level::Warning, &format!("{}; it is tried again", error.message)));
                    }
                }
                Err(error) => return Err(error),
            }
            if context.screen.left || (!more && (!args.follow || over)) {
                return Ok(0);
            }
            if !more {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    })
}

fn chosen<'a>(args: &LogsArgs, jobs: &'a [Job], known: &KnownRun) -> Result<&'a Job> {
    let running = |job: &&Job| matches!(job.stage, Stage::Running { .. });
    let failed = |job: &&Job| matches!(job.stage, Stage::Failed { .. });
    let found = match &args.candidate {
        Some(name) => jobs.iter().find(|job| job.name == *name),
        None => jobs.iter().find(running).or_else(|| jobs.iter().find(failed)).or_else(|| jobs.first()),
    };
    found.filter(|job| job.attempt > 0).ok_or_else(|| {
        Error::input("the job has not been handed over yet")
            .at(&known.saved.run.folder)
            .hint(format!("see `qlaunch status {}`", known.saved.run.name))
    })
}

fn is_over(known: &KnownRun, name: &str) -> Result<bool> {
    let state = fold(&read_journal(&known.saved.run.folder)?);
    let going = |stage: &Stage| matches!(stage, Stage::Waiting | Stage::Submitting | Stage::Running { .. });
    Ok(!state.job(name).is_some_and(|job| going(&job.stage)))
}
