//! Arguments, logging and exit code.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::report::watch_signals;
use crate::run::run;

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
    },
}

/// Runs the worker.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("QLAUNCH_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let Command::Run { spec, attempt } = arguments.command;
    match watch_signals().and_then(|()| run(&spec, &attempt)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log is for people; a closed one must not hide the exit code.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
