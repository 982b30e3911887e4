//! The worker's entry point.

use std::process::ExitCode;

fn main() -> ExitCode {
    qlaunch_worker::cli::main()
}
