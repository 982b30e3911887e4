//! Arguments, logging and exit code.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use qlaunch_shared::Error;
use qlaunch_shared::protocol::DeviceChoice;
use tracing_subscriber::EnvFilter;

use crate::comm::tcp::Rendezvous;
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

/// Runs the worker.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("QLAUNCH_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let (spec, attempt, device, ranks) = match arguments.command {
        Command::Run { spec, attempt, device, ranks } => (spec, attempt, device, ranks),
        Command::Probe => return print_probe(),
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

fn print_probe() -> ExitCode {
    let text = match serde_json::to_string_pretty(&probe(&Places::gather())) {
        Ok(text) => text,
        Err(error) => return fail(&Error::bug(format!("cannot write JSON: {error}"))),
    };
    // Whoever closed the pipe has read enough.
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::SUCCESS
}
