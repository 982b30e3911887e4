//! The commands and the flags that all of them have.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use super::cancel::CancelArgs;
use super::cluster::ClusterArgs;
use super::doctor::DoctorArgs;
use super::eval::EvalArgs;
use super::fetch::FetchArgs;
use super::logs::LogsArgs;
use super::plan::PlanArgs;
use super::portfolio::PortfolioArgs;
use super::quantize::QuantizeArgs;
use super::recipe::RecipeArgs;
use super::reproduce::ReproduceArgs;
use super::schedule::ScheduleArgs;
use super::status::StatusArgs;
use super::store::StoreArgs;
use super::submit::SubmitArgs;
use super::verify::VerifyArgs;
use super::watch::{RerunArgs, WatchArgs};

const EXAMPLES: &str = "\
Examples:
  qlaunch submit examples/sweeps/tiny-llama.yaml       from a sweep file to a judged portfolio
  qlaunch portfolio                                    the newest portfolio again
  qlaunch plan MODEL --recipe general/ptq/fp8_default-kv_fp8
  qlaunch quantize MODEL --recipe general/ptq/fp8_default-kv_fp8 --calib text.jsonl --out DIR
  qlaunch eval DIR --data text.txt --reference MODEL
  qlaunch recipe list

Exit codes: 0 ok, 1 bug, 2 usage, 3 config or input, 10 gate failed, 11 some candidates failed,
20 unreachable, 21 login needed, 22 refused by the scheduler, 30 interrupted.";

/// A build system for quantized checkpoints: from a sweep file to a judged portfolio.
#[derive(Debug, Parser)]
#[command(name = "qlaunch", version, after_help = EXAMPLES, max_term_width = 120)]
pub struct Arguments {
    /// What to print on stdout: text for people, or one JSON document for programs.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Folder of recipes that goes before the project's, the user's and the built-in ones.
    #[arg(long, global = true, value_name = "DIR")]
    pub recipes: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What stdout is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and sentences.
    Text,
    /// One JSON document.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make, measure and judge every candidate of a sweep file.
    Submit(SubmitArgs),
    /// Tell how the jobs of a run are.
    Status(StatusArgs),
    /// Follow a run again until it is over.
    Watch(WatchArgs),
    /// Print the log of a job.
    Logs(LogsArgs),
    /// Stop jobs of a run.
    Cancel(CancelArgs),
    /// Run jobs of a run again.
    Rerun(RerunArgs),
    /// Bring checkpoints of a run home.
    Fetch(FetchArgs),
    /// Show the portfolio of a run.
    Portfolio(PortfolioArgs),
    /// List, show and check clusters, and log in.
    Cluster(ClusterArgs),
    /// Look after what runs share: statistics, and pieces of checkpoints.
    Store(StoreArgs),
    /// Check that a checkpoint is what was made.
    Verify(VerifyArgs),
    /// Make pieces of a checkpoint again, and compare.
    Reproduce(ReproduceArgs),
    /// Tell what a recipe will do to a model, from headers alone.
    Plan(PlanArgs),
    /// Make one quantized checkpoint.
    Quantize(QuantizeArgs),
    /// Measure the perplexity of a model or checkpoint.
    Eval(EvalArgs),
    /// List, show, check, compare and start recipes.
    Recipe(RecipeArgs),
    /// Let sweeps run again and again.
    Schedule(ScheduleArgs),
    /// Tell what of this machine works, and what to do about the rest.
    Doctor(DoctorArgs),
}
