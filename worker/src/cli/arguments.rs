//! Arguments, logging and exit code.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use qlaunch_shared::protocol::{DeviceChoice, DownloadEvent};
use qlaunch_shared::{Error, Result};
use tracing_subscriber::EnvFilter;

use crate::comm::tcp::Rendezvous;
use crate::hub::{Aim, Asked, HubPlaces, Kind, bring};
use crate::libraries::Places;
use crate::probe::probe;
use crate::report::{stop_with_parent, watch_signals};
use crate::run::{Flags, run};

/// The one binary that every node runs.
#[derive(Debug, Parser)]
#[command(name = "qlaunch-worker", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Does one job: calibrate, quantize, audit, evaluate, as its spec says.
    Run {
        /// The job's `spec.json`.
        #[arg(long)]
        spec: PathBuf,
        /// Folder of this attempt, for events and the outcome.
        #[arg(long)]
        attempt: PathBuf,
        /// Where the work is done: auto, cpu, cuda, or cuda:N for one GPU of several; what the spec says if not given.
        #[arg(long, value_name = "DEVICE")]
        device: Option<DeviceChoice>,
        #[command(flatten)]
        ranks: RankArguments,
    },
    /// Prints what this node has as JSON: devices, driver, libraries, memory, instruction sets.
    Probe,
    /// Finds a model or data file of the Hub in Hugging Face's cache, or brings it there; says so as one JSON object a line.
    Download(DownloadArguments),
}

/// Where this process stands among several that share a model's layers. Under `srun` its variables say so; with `--ranks`
/// alone, or `ranks` in the spec, this process starts the others on its own host.
#[derive(Debug, Args)]
struct RankArguments {
    /// Which rank this is, from 0.
    #[arg(long, value_name = "R", requires = "ranks")]
    rank: Option<usize>,
    /// How many ranks there are.
    #[arg(long, value_name = "N")]
    ranks: Option<usize>,
    /// Where they meet: `HOST:PORT` of rank 0, or `file:PATH` on a disk that all see.
    #[arg(long, value_name = "PLACE", requires = "rank")]
    rendezvous: Option<Rendezvous>,
    /// File with what only ranks of this run know, mode 600; `token` in the attempt's folder if not given.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Stops when this process, which must be the parent, is gone.
    #[arg(long, value_name = "PID", hide = true)]
    parent: Option<i32>,
}

/// What is wanted of the Hub.
#[derive(Debug, Args)]
struct DownloadArguments {
    /// The repository, as `ORG/NAME`.
    repository: String,
    /// It is a data set.
    #[arg(long)]
    dataset: bool,
    /// Branch, tag or commit.
    #[arg(long, value_name = "REV", default_value = "main")]
    revision: String,
    /// The file of a data set; its only data file if not given.
    #[arg(long, value_name = "NAME", requires = "dataset")]
    file: Option<String>,
    /// The cache for what is new, where neither HF_HUB_CACHE nor HF_HOME names one.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// File with a token, mode 600; HF_TOKEN or the token of `hf auth login` if not given.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Brings no weights: their headers and every small file go into this folder.
    #[arg(long, value_name = "DIR")]
    headers: Option<PathBuf>,
    /// Stops when this process, which must be the parent, is gone.
    #[arg(long, value_name = "PID", hide = true)]
    parent: Option<i32>,
}

/// Runs the worker.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("QLAUNCH_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let (spec, attempt, device, ranks) = match arguments.command {
        Command::Run { spec, attempt, device, ranks } => (spec, attempt, device, ranks),
        Command::Probe => return print_probe(),
        Command::Download(arguments) => return download(arguments),
    };
    let RankArguments { rank, ranks, rendezvous, token_file, parent } = ranks;
    let flags = Flags { rank, ranks, rendezvous, token_file, device };
    let ready = watch_signals().and_then(|()| parent.map_or(Ok(()), stop_with_parent));
    match ready.and_then(|()| run(&spec, &attempt, &flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &Error) -> ExitCode {
    // The log is for people; a closed one must not hide the exit code.
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(error.exit_code())
}

/// Prints how it goes; the last line is what was found, or why not.
fn download(arguments: DownloadArguments) -> ExitCode {
    let print = |event: &DownloadEvent| {
        // Whoever closed the pipe does not want to know.
        if let Ok(line) = serde_json::to_string(event) {
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    };
    let found = || -> Result<_> {
        let DownloadArguments { repository, dataset, revision, file, into, token_file, headers, parent } =
            arguments;
        parent.map_or(Ok(()), stop_with_parent)?;
        let kind = if dataset { Kind::Dataset } else { Kind::Model };
        let asked = Asked::of(kind, &repository, &revision, file)?;
        let places = HubPlaces::gather(|name| std::env::var_os(name), into, token_file)?;
        bring(&asked, &places, &headers.map_or(Aim::Everything, Aim::Headers), &print)
    };
    match found() {
        Ok(snapshot) => {
            print(&DownloadEvent::Found(snapshot));
            ExitCode::SUCCESS
        }
        Err(error) => {
            print(&DownloadEvent::Failed { error: error.clone() });
            fail(&error)
        }
    }
}

fn print_probe() -> ExitCode {
    let text = match serde_json::to_string_pretty(&probe(&Places::gather())) {
        Ok(text) => text,
        Err(error) => return fail(&Error::bug(format!("cannot write JSON: {error}"))),
    };
    // Whoever closed the pipe has read enough.
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::SUCCESS
}
