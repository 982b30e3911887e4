//! `qlaunch submit`: from a sweep file to a judged portfolio.

use std::path::PathBuf;
use std::process::Command as Process;

use clap::Args;
use qlaunch_shared::protocol::{Level, RunFolder};
use qlaunch_shared::{Error, ErrorKind, Result};

use super::attend::{Attended, attend};
use super::dry_run::dry_run;
use super::main::Context;
use super::plan::GroupChoice;
use super::schedule::wall_clock;
use super::smoke::smoke;
use super::submission::{Submission, header};
use crate::config::Kind;
use crate::schedule::Begin;
use crate::session::{Opening, now};
use crate::ui::note;

const EXAMPLES: &str = "\
Examples:
  qlaunch submit examples/sweeps/tiny-llama.yaml
  qlaunch submit --cluster local sweep.yaml --dry-run          plan and job scripts, nothing runs
  qlaunch submit --cluster hpc sweep.yaml --smoke-first        try every candidate small and here, then submit
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
    /// Shows the plan, what is different from the last run, and the job scripts; runs nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Tells for each piece of a checkpoint that is not in the store what is new about it.
    #[arg(long)]
    pub explain: bool,
    /// Really runs every candidate on two layers and four calibration samples, on this machine, and nothing else.
    #[arg(long, conflicts_with = "dry_run")]
    pub smoke: bool,
    /// Does that first, and submits only if every candidate got through.
    #[arg(long, conflicts_with_all = ["dry_run", "smoke"])]
    pub smoke_first: bool,
    /// Runs everything again, what is done too.
    #[arg(long)]
    pub fresh: bool,
    /// Reads every byte of the model again, instead of trusting the sizes and times of its files, and runs everything again.
    #[arg(long)]
    pub rehash: bool,
    #[command(flatten)]
    pub groups: GroupChoice,
    /// Lets no job begin before: 22:00, 2026-11-22T02:00, now+90m. SLURM holds them; elsewhere this command waits.
    #[arg(long, value_name = "WHEN")]
    pub begin: Option<Begin>,
    /// Submits nothing where the jobs' time limits allow more GPU-hours than that.
    #[arg(long, value_name = "HOURS")]
    pub max_gpu_hours: Option<f64>,
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
    for remark in &submission.settings.remarks {
        context.screen.say(&note(Level::Warning, remark));
    }
    let opening = if args.fresh || args.rehash { Opening::Fresh } else { Opening::Retry };
    let mut setup = submission.setup(&context.around, opening)?;
    let begin = args.begin.map(moment).transpose()?;
    setup.not_before(begin);
    if args.dry_run {
        dry_run(&args, &submission, &setup, context)?;
        return Ok(0);
    }
    if args.smoke || args.smoke_first {
        let code = smoke(&args, &submission, &setup, context)?;
        if args.smoke || code != 0 {
            return Ok(code);
        }
    }
    context.screen.data(&header(&submission))?;
    confirm_fresh(&args, &submission, context)?;
    confirm_hours(&args, &submission, context)?;
    submission.bring(&setup, &mut |text| context.screen.say(text))?;
    submission.write(&args, begin)?;
    if let Some(begin) = args.begin {
        context.screen.say(&waiting(begin, setup.kind)?);
    }
    let again = args.again();
    let attended = Attended { run: &submission.run, sweep: &submission.sweep, submit: &again };
    attend(attended, &setup, context)
}

/// The moment as milliseconds since the Unix epoch, by the system's own rules for zones and daylight saving.
fn moment(begin: Begin) -> Result<u64> {
    let Some(moment) = begin.moment(wall_clock()?) else {
        let Begin::After(time) = begin else { return Err(Error::bug("a moment was lost")) };
        return Ok(now() + u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    };
    let output = Process::new("date").args(["-d", &moment.to_string(), "+%s"]).output();
    let output = output.map_err(|error| Error::bug(format!("cannot ask `date` for the time: {error}")))?;
    let seconds = String::from_utf8_lossy(&output.stdout).trim().parse::<u64>();
    let seconds = seconds.map_err(|_| {
        Error::usage(format!("there is no {moment} on this machine's clock"))
            .hint("clocks are put forward then")
    })?;
    match seconds * 1000 > now() {
        true => Ok(seconds * 1000),
        false => Err(Error::usage(format!("{moment} is over")).hint("leave `--begin` away to begin now")),
    }
}

/// Who holds the jobs until then.
fn waiting(begin: Begin, kind: Kind) -> Result<String> {
    let when = match begin.moment(wall_clock()?) {
        Some(moment) => format!("at {moment}"),
        None => "then".to_owned(),
    };
    Ok(match kind {
        Kind::Slurm => format!("SLURM lets the jobs begin {when}; Ctrl-C leaves them to it"),
        Kind::Local | Kind::Ssh | Kind::Docker => {
            format!(
                "the jobs begin {when} if this command still runs: there is no scheduler that could hold them"
            )
        }
    })
}

/// What a run may cost at most is known before it costs anything.
fn confirm_hours(args: &SubmitArgs, submission: &Submission, context: &mut Context) -> Result<()> {
    let settings = &submission.settings;
    let Some(budget) = submission.budget(args.fresh)? else {
        return match args.max_gpu_hours {
            None => Ok(()),
            Some(_) => Err(Error::usage("nobody can tell how many GPU-hours the run takes").hint(
                "`--max-gpu-hours` wants SLURM, `slurm.gpus` and `slurm.time` in the cluster's profile",
            )),
        };
    };
    context.screen.say(&budget.words());
    if let Some(most) = args.max_gpu_hours.filter(|most| budget.hours() > *most) {
        let message = format!("the run may take {:.1} GPU-hours, and {most} are allowed", budget.hours());
        return Err(
            Error::usage(message).hint("lower `slurm.time`, take candidates out, or raise `--max-gpu-hours`")
        );
    }
    if args.yes || args.max_gpu_hours.is_some() || budget.hours() <= settings.profile.confirm_gpu_hours {
        return Ok(());
    }
    match context.screen.ask(&format!("submit it to {}?", settings.cluster)) {
        Some(true) => Ok(()),
        Some(false) => Err(Error::new(ErrorKind::Interrupted, "nothing was submitted")),
        None => Err(Error::usage(format!("the run may take {:.1} GPU-hours", budget.hours()))
            .hint("add `--yes` or `--max-gpu-hours`, or raise `confirm_gpu_hours` in the cluster's profile")),
    }
}

/// A fresh start replaces checkpoints that somebody may be using.
fn confirm_fresh(args: &SubmitArgs, submission: &Submission, context: &mut Context) -> Result<()> {
    let done = RunFolder(submission.run.folder.clone()).portfolio().exists();
    if !(args.fresh || args.rehash) || args.yes || !done {
        return Ok(());
    }
    let question = format!("replace all results in {}?", context.screen.path(&submission.run.folder));
    match context.screen.ask(&question) {
        Some(true) => Ok(()),
        Some(false) => Err(Error::new(ErrorKind::Interrupted, "nothing was changed")),
        None => Err(Error::usage(format!("running again would {question}")).hint("add `--yes`")),
    }
}
