//! Measures one bf16 product of 2048×2048×2048 on one thread in CPU-seconds; `benches/modelopt/run.sh` sets the speed of a
//! whole calibration against it. Prints one JSON object.

use std::io::Write;

use qlaunch_shared::protocol::NumericPath;
use qlaunch_shared::{Error, Result};
use qlaunch_worker::ops::{Backend, CpuBackend, CpuPath, Linear};
use qlaunch_worker::tensor::DType;
use qlaunch_worker::tensor::host::HostTensor;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

const SIDE: usize = 2048;
const RUNS: usize = 6;

/// Values between -1 and 1.
fn noise(shape: &[usize]) -> Result<HostTensor> {
    let mut state = 0x2545_f491u32;
    let values = (0..shape.iter().product()).map(|_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    });
    HostTensor::new(shape, values.collect::<Vec<f32>>())?.view().cast(DType::BF16)
}

/// User and system time of this process, in seconds.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn main() -> Result<()> {
    let path = NumericPath::detect();
    let backend = CpuBackend::new(1, path)?;
    let (x, weight) = (noise(&[SIDE, SIDE])?, noise(&[SIDE, SIDE])?);
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
