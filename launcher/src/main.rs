//! The `qlaunch` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    qlaunch::cli::main()
}
