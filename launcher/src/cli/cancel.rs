//! `qlaunch cancel`: stops jobs of a run, whoever drives it.

use clap::Args;
use qlaunch_shared::{Error, ErrorKind, Result};

use super::main::Context;
use super::runs::RunChoice;
use super::watch::{check_names, setup};
use crate::engine::{Stage, fold};
use crate::journal::Journal;
use crate::session::{Opening, Requests, carry_out};
use crate::ui::Watch;
use qlaunch_shared::protocol::RunFolder;

/// Stops jobs of a run; what is done stays.
#[derive(Debug, Args)]
pub struct CancelArgs {
    #[command(flatten)]
    choice: RunChoice,
    /// Candidates or baselines to stop; all if none is named.
    #[arg(long = "candidate", value_name = "NAME")]
    candidates: Vec<String>,
    /// Answers every question with yes.
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub fn run(args: &CancelArgs, context: &mut Context) -> Result<u8> {
    let known = args.choice.open(&context.around)?;
    check_names(&args.candidates, &known)?;
    let state = fold(&known.journal()?);
    let over = |stage: &Stage| matches!(stage, Stage::Accepted | Stage::Failed { .. });
    let meant = |name: &String| args.candidates.is_empty() || args.candidates.contains(name);
    let jobs: Vec<String> = state
        .jobs
        .iter()
        .filter(|job| !over(&job.stage) && meant(&job.name))
        .map(|job| job.name.clone())
        .collect();
    let name = &known.saved.run.name;
    if jobs.is_empty() {
        context.screen.say(&format!("nothing of {name} is left to cancel"));
        return Ok(0);
    }
    if !args.yes {
        let question = format!("cancel {} of {name}?", jobs.join(", "));
        match context.screen.ask(&question) {
            Some(true) => {}
            Some(false) => return Err(Error::new(ErrorKind::Interrupted, "nothing was changed")),
            None => return Err(Error::usage(format!("this would {question}")).hint("add `--yes`")),
        }
    }
    Requests::of(&known.saved.run.folder).cancel(&jobs)?;
    // Whoever holds the journal drives the run; the lock is let go again at once.
    if Journal::open(&RunFolder(known.saved.run.folder.clone()).journal()).is_err() {
        context.screen.say("the qlaunch that drives this run was asked to cancel them");
        return Ok(0);
    }
    let setup = setup(&known, &context.around, Opening::Cancel)?;
    {
        let names = known.saved.run.jobs.iter().map(|job| job.name.clone());
        let mut watch = Watch::new(&mut context.screen, names);
        carry_out(&known.saved.run, &setup, &mut watch)?;
    }
    context.screen.say(&format!("cancelled: {}", jobs.join(", ")));
    Ok(0)
}
