//! Measures one bf16 product of 2048×2048×2048 on one thread in CPU-seconds; `benches/modelopt/run.sh` sets the speed of a
//! whole calibration against it. Prints one JSON object.

mod common;

use std::io::Write;

use qlaunch_shared::protocol::NumericPath;
use qlaunch_shared::{Error, Result};
use qlaunch_worker::ops::{Backend, CpuBackend, CpuPath, Linear};
use qlaunch_worker::report::cpu_seconds;
use qlaunch_worker::tensor::DType;
use serde_json::json;

use common::noise;

const SIDE: usize = 2048;
const RUNS: usize = 6;

fn main() -> Result<()> {
    let path = NumericPath::detect();
    let backend = CpuBackend::new(1, path)?;
    let (x, weight) = (noise(DType::BF16, &[SIDE, SIDE], 1.0)?, noise(DType::BF16, &[SIDE, SIDE], 1.0)?);
    let mut best = f64::INFINITY;
    // The first round warms up and may count: it can only be slower.
    for _ in 0..=RUNS {
        let begun = cpu_seconds();
        backend.linear(&x, Linear { weight: &weight, bias: None })?;
        best = best.min(cpu_seconds() - begun);
    }
    let speed = 2.0 * (SIDE as f64).powi(3) / best / 1e9;
    let line = json!({ "gflop_per_cpu_s": speed, "path": path.name() });
    writeln!(std::io::stdout(), "{line}")
        .map_err(|error| Error::io("write the result", std::path::Path::new("standard output"), &error))
}
