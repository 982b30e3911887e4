//! `qlaunch watch` and `qlaunch rerun`: a run that was submitted before, driven again.

use clap::Args;
use qlaunch_shared::yaml::did_you_mean;
use qlaunch_shared::{Error, ErrorKind, Result};

use super::attend::{Attended, attend};
use super::main::Context;
use super::runs::{KnownRun, RunChoice};
use crate::config::Surroundings;
use crate::session::{Opening, Setup, Site, block_on};

/// Follows a run again until it is over, and shows its portfolio.
#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    choice: RunChoice,
}

/// Runs jobs of a run again.
#[derive(Debug, Args)]
pub struct RerunArgs {
    #[command(flatten)]
    choice: RunChoice,
    /// Candidates or baselines to run again, done or not; all that failed if none is named.
    #[arg(long = "candidate", value_name = "NAME")]
    candidates: Vec<String>,
    /// Runs what failed again; that is what happens if nothing is named.
    #[arg(long, conflicts_with_all = ["candidates", "all"])]
    failed: bool,
    /// Runs everything again, what is done too.
    #[arg(long, conflicts_with = "candidates")]
    all: bool,
    /// Answers every question with yes.
    #[arg(long)]
    yes: bool,
}

/// Runs `watch`.
pub fn run(args: &WatchArgs, context: &mut Context) -> Result<u8> {
    let known = args.choice.open(&context.around)?;
    let mut setup = setup(&known, &context.around, Opening::Attach)?;
    setup.not_before(known.saved.begin);
    drive(&known, &setup, context)
}

/// Runs `rerun`.
pub fn rerun(args: RerunArgs, context: &mut Context) -> Result<u8> {
    let known = args.choice.open(&context.around)?;
    check_names(&args.candidates, &known)?;
    if args.all && !args.yes {
        let question = format!("run everything of {} again?", known.saved.run.name);
        match context.screen.ask(&question) {
            Some(true) => {}
            Some(false) => return Err(Error::new(ErrorKind::Interrupted, "nothing was changed")),
            None => return Err(Error::usage(format!("`--all` would {question}")).hint("add `--yes`")),
        }
    }
    let opening = if args.all { Opening::Fresh } else { Opening::Retry };
    let mut setup = setup(&known, &context.around, opening)?;
    setup.again = args.candidates;
    drive(&known, &setup, context)
}

/// Every name must be a job of the run.
///
/// # Errors
/// A name that is none.
pub fn check_names(names: &[String], known: &KnownRun) -> Result<()> {
    let jobs: Vec<&str> = known.saved.run.jobs.iter().map(|job| job.name.as_str()).collect();
    match names.iter().find(|name| !jobs.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let message = format!("{} has no job `{name}`", known.saved.run.name);
            Err(Error::usage(message).hint(did_you_mean(name, &jobs)))
        }
    }
}

/// How a known run is carried out; its cluster is called.
///
/// # Errors
/// A cluster that does not answer, a worker that is nowhere.
pub fn setup(known: &KnownRun, around: &Surroundings, opening: Opening) -> Result<Setup> {
    block_on(async {
        let site = Site::open(&known.settings, around).await?;
        Setup::prepare(&known.settings, around, site, opening)
    })
}

fn drive(known: &KnownRun, setup: &Setup, context: &mut Context) -> Result<u8> {
    let sweep = known.sweep()?;
    block_on(setup.ship())?;
    let saved = &known.saved;
    attend(Attended { run: &saved.run, sweep: &sweep, submit: &saved.submit }, setup, context)
}
