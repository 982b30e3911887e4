//! `qlaunch submit`: from a sweep file to a judged portfolio.

use std::path::PathBuf;

use clap::Args;
use qlaunch_shared::protocol::{Level, RunFolder};
use qlaunch_shared::sweep::{Decision, Judgement, Portfolio, judge};
use qlaunch_shared::{Error, ErrorKind, Result};

use super::main::Context;
use super::plan::GroupChoice;
use super::submission::{Submission, dry_run, header};
use crate::session::{Carried, Setup, carry_out, entrants, now, write_portfolio};
use crate::ui::{Watch, note, show_portfolio};

const EXAMPLES: &str = "\
Examples:
  qlaunch submit examples/sweeps/tiny-llama.yaml
  qlaunch submit --cluster local sweep.yaml --dry-run          plan and job scripts, nothing runs
  qlaunch submit sweep.yaml --format json > portfolio.json

Submitting again goes on where the run stopped: what is done is not run again unless `--fresh` is given.";

/// Plans the sweep, runs each candidate as a job, gates and judges them, and shows the portfolio.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SubmitArgs {
    /// The sweep file.
    pub sweep: PathBuf,
    /// Name of the cluster: a profile in clusters/, in ~/.config/qlaunch/clusters/, or built in.
    #[arg(long, value_name = "NAME", default_value = "local")]
    pub cluster: String,
    /// Folder of all runs [default: runs, or QLAUNCH_RUNS].
    #[arg(long, value_name = "DIR")]
    pub runs: Option<PathBuf>,
    /// Shows the plan and the job scripts, and runs nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Runs everything again, what is done too.
    #[arg(long)]
    pub fresh: bool,
    #[command(flatten)]
    pub groups: GroupChoice,
    /// Answers every question with yes.
    #[arg(long)]
    pub yes: bool,
}

impl SubmitArgs {
    /// The command that goes on with the run.
    pub fn again(&self) -> String {
        let runs = self.runs.as_ref().map_or(String::new(), |runs| format!("--runs {} ", runs.display()));
        let fix = if self.groups.fix_groups { "--fix-groups " } else { "" };
        format!("qlaunch submit --cluster {} {runs}{fix}{}", self.cluster, self.sweep.display())
    }
}

/// Runs the command.
pub fn run(args: SubmitArgs, context: &mut Context) -> Result<u8> {
    let submission = Submission::read(&args, &context.around)?;
    let setup = Setup::from_settings(&submission.settings, &context.around, args.fresh)?;
    if args.dry_run {
        dry_run(&submission, &setup, context)?;
        return Ok(0);
    }
    context.screen.data(&header(&submission))?;
    confirm_fresh(&args, &submission, context)?;
    submission.write()?;
    let carried = {
        let names = submission.run.jobs.iter().map(|job| job.name.clone());
        let mut watch = Watch::new(&mut context.screen, names);
        carry_out(&submission.run, &setup, &mut watch)?
    };
    if carried.interrupted {
        return Err(interrupted(&carried, &args));
    }
    let portfolio = conclude(&args, &submission, carried)?;
    show(&portfolio, context)?;
    Ok(exit_code(&portfolio))
}

/// A fresh start replaces checkpoints that somebody may be using.
fn confirm_fresh(args: &SubmitArgs, submission: &Submission, context: &mut Context) -> Result<()> {
    let done = RunFolder(submission.run.folder.clone()).portfolio().exists();
    if !args.fresh || args.yes || !done {
        return Ok(());
    }
    let question = format!("replace all results in {}?", context.screen.path(&submission.run.folder));
    match context.screen.ask(&question) {
        Some(true) => Ok(()),
        Some(false) => Err(Error::new(ErrorKind::Interrupted, "nothing was changed")),
        None => Err(Error::usage(format!("`--fresh` would {question}")).hint("add `--yes`")),
    }
}

/// Judges what came of the run and keeps the portfolio beside it.
fn conclude(args: &SubmitArgs, submission: &Submission, mut carried: Carried) -> Result<Portfolio> {
    let run = &submission.run;
    let portfolio = judge(Judgement {
        run: &run.name,
        submit: &args.again(),
        sweep: &submission.sweep,
        entrants: entrants(run, &carried.state)?,
    });
    write_portfolio(&run.folder, &portfolio, &mut carried.journal, now())?;
    Ok(portfolio)
}

fn show(portfolio: &Portfolio, context: &mut Context) -> Result<()> {
    match context.screen.json {
        true => context.screen.document(portfolio),
        false => {
            let text = show_portfolio(portfolio, &context.screen);
            context.screen.data(&format!("\n{text}"))?;
            if exit_code(portfolio) == ErrorKind::Candidates.exit_code() {
                context.screen.say(&note(Level::Warning, "some candidates failed (exit code 11)"));
            }
            Ok(())
        }
    }
}

/// 11 if something did not run to its end, else 10 if a gate failed, else 0. That a candidate is not acceptable is an
/// answer, not a failure.
fn exit_code(portfolio: &Portfolio) -> u8 {
    let unfinished = |decision: &Decision| matches!(decision, Decision::Failed { .. } | Decision::Unfinished);
    if portfolio.rows.iter().any(|row| unfinished(&row.decision)) {
        return ErrorKind::Candidates.exit_code();
    }
    match portfolio.rows.iter().any(qlaunch_shared::sweep::Row::gate_failed) {
        true => ErrorKind::Gate.exit_code(),
        false => 0,
    }
}

fn interrupted(carried: &Carried, args: &SubmitArgs) -> Error {
    let jobs = &carried.state.jobs;
    let done = jobs.iter().filter(|job| job.stage == crate::engine::Stage::Accepted).count();
    Error::new(
        ErrorKind::Interrupted,
        format!("stopped with {done} of {} done, and nothing is lost", jobs.len()),
    )
    .hint(format!("go on with `{}`", args.again()))
}
