//! Start-up: how long `qlaunch --help` takes from start to end, against a program that does nothing.
//! `benches/startup/run.sh` runs it. The bound is 5 ms: a shell completion or a prompt may call the program.

use std::error::Error;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 100;
const BOUND_MS: f64 = 5.0;

/// Smallest and median milliseconds of a program's whole life.
fn time(program: &str, argument: &str) -> Result<(f64, f64), Box<dyn Error>> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let status = Command::new(program).arg(argument).stdout(Stdio::null()).status()?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        if !status.success() {
            return Err(format!("{program} ended with {status}").into());
        }
    }
    times.sort_by(f64::total_cmp);
    Ok((times[0], times[ROUNDS / 2]))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (least, median) = time(env!("CARGO_BIN_EXE_qlaunch"), "--help")?;
    let (nothing, _) = time("true", "")?;
    let result = serde_json::json!({
        "bench": "qlaunch --help, whole process, 100 runs",
        "least_ms": least,
        "median_ms": median,
        "true_least_ms": nothing,
        "bound_ms": BOUND_MS,
        "within_bound": least <= BOUND_MS,
    });
    writeln!(std::io::stdout(), "{result:#}")?;
    if let Some(path) = std::env::args().skip(1).find(|argument| !argument.starts_with('-')) {
        std::fs::write(path, format!("{result:#}\n"))?;
    }
    if least > BOUND_MS {
        return Err(format!("{least:.2} ms are over the bound of {BOUND_MS} ms").into());
    }
    Ok(())
}
