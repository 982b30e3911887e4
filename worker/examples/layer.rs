//! Measures one Llama decoder layer and one matrix product in CPU-seconds; `benches/layer/run.sh` compares with torch.
//!
//! Prints one JSON object: for each type the CPU-seconds and wall seconds of the fastest of several runs.

mod common;

use std::io::Write;
use std::time::Instant;

use qlaunch_shared::protocol::NumericPath;
use qlaunch_shared::{Error, Result};
use qlaunch_worker::ops::{Activation, AttentionShape, Backend, CpuBackend, CpuPath, Linear, RotaryTables};
use qlaunch_worker::report::cpu_seconds;
use qlaunch_worker::tensor::DType;
use qlaunch_worker::tensor::host::HostTensor;
use serde_json::{Map, Value, json};

use common::noise;

const BATCH: usize = 8;
const SEQ: usize = 512;
const HIDDEN: usize = 2048;
const INTERMEDIATE: usize = 5632;
const HEADS: usize = 32;
const KV_HEADS: usize = 4;
const HEAD_DIM: usize = HIDDEN / HEADS;
const RUNS: usize = 3;
/// Side of the matrix product.
const SIDE: usize = 2048;

/// The weights of one decoder layer.
struct Layer {
    norms: [HostTensor; 2],
    q: HostTensor,
    k: HostTensor,
    v: HostTensor,
    o: HostTensor,
    gate: HostTensor,
    up: HostTensor,
    down: HostTensor,
    tables: RotaryTables<HostTensor>,
    positions: Vec<u32>,
}

impl Layer {
    fn new(dtype: DType) -> Result<Self> {
        let weight = |rows: usize, columns: usize| noise(dtype, &[rows, columns], 0.02);
        Ok(Self {
            norms: [noise(dtype, &[HIDDEN], 1.0)?, noise(dtype, &[HIDDEN], 1.0)?],
            q: weight(HIDDEN, HIDDEN)?,
            k: weight(KV_HEADS * HEAD_DIM, HIDDEN)?,
            v: weight(KV_HEADS * HEAD_DIM, HIDDEN)?,
            o: weight(HIDDEN, HIDDEN)?,
            gate: weight(INTERMEDIATE, HIDDEN)?,
            up: weight(INTERMEDIATE, HIDDEN)?,
            down: weight(HIDDEN, INTERMEDIATE)?,
            tables: RotaryTables {
                cosines: noise(dtype, &[SEQ, HEAD_DIM / 2], 1.0)?,
                sines: noise(dtype, &[SEQ, HEAD_DIM / 2], 1.0)?,
            },
            positions: (0..BATCH * SEQ).map(|token| (token % SEQ) as u32).collect(),
        })
    }

    /// The whole layer, as a Llama computes it.
    fn forward(&self, backend: &CpuBackend, input: &HostTensor) -> Result<HostTensor> {
        let linear = |x: &HostTensor, weight: &HostTensor| backend.linear(x, Linear { weight, bias: None });
        let shape = AttentionShape {
            batch: BATCH,
            seq: SEQ,
            heads: HEADS,
            kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            scale: 1.0 / (HEAD_DIM as f32).sqrt(),
            window: None,
        };
        let normal = backend.rms_norm(input, &self.norms[0], 1e-5)?;
        let (mut q, mut k) = (linear(&normal, &self.q)?, linear(&normal, &self.k)?);
        let v = linear(&normal, &self.v)?;
        backend.rotate(&mut q, HEAD_DIM, &self.tables, &self.positions)?;
        backend.rotate(&mut k, HEAD_DIM, &self.tables, &self.positions)?;
        let attended = backend.attention(&q, &k, &v, &shape)?;
        let mut hidden = linear(&attended, &self.o)?;
        backend.add(&mut hidden, input)?;
        let normal = backend.rms_norm(&hidden, &self.norms[1], 1e-5)?;
        let (gate, up) = (linear(&normal, &self.gate)?, linear(&normal, &self.up)?);
        let active = backend.activate(&gate, &up, Activation::Silu)?;
        backend.add(&mut hidden, &linear(&active, &self.down)?)?;
        Ok(hidden)
    }
}

/// CPU-seconds and wall seconds of the cheapest run, after one to warm up.
fn measure(mut work: impl FnMut() -> Result<HostTensor>) -> Result<(f64, f64)> {
    work()?;
    let mut best = (f64::INFINITY, f64::INFINITY);
    for _ in 0..RUNS {
        let (cpu, wall) = (cpu_seconds(), Instant::now());
        work()?;
        let spent = (cpu_seconds() - cpu, wall.elapsed().as_secs_f64());
        if spent.0 < best.0 {
            best = spent;
        }
    }
    Ok(best)
}

fn main() -> Result<()> {
    let path = match std::env::args().nth(1) {
        Some(name) => name.parse()?,
        None => NumericPath::detect(),
    };
    let mut report = Map::new();
    report.insert("engine".to_owned(), json!("qlaunch"));
    report.insert("path".to_owned(), json!(path.name()));
    for (name, dtype) in [("f32", DType::F32), ("bf16", DType::BF16)] {
        let backend = CpuBackend::new(2, path)?;
        let (layer, input) = (Layer::new(dtype)?, noise(dtype, &[BATCH * SEQ, HIDDEN], 1.0)?);
        let (cpu, wall) = measure(|| layer.forward(&backend, &input))?;
        let (x, weight) = (noise(dtype, &[SIDE, SIDE], 1.0)?, noise(dtype, &[SIDE, SIDE], 1.0)?);
        let single = CpuBackend::new(1, path)?;
        let (product, _) = measure(|| single.linear(&x, Linear { weight: &weight, bias: None }))?;
        let speed = 2.0 * (SIDE as f64).powi(3) / product / 1e9;
        let entry = json!({ "layer_cpu_s": cpu, "layer_wall_s": wall, "gemm_gflop_per_cpu_s": speed });
        report.insert(name.to_owned(), entry);
    }
    writeln!(std::io::stdout(), "{}", Value::Object(report))
        .map_err(|error| Error::io("write the results", std::path::Path::new("standard output"), &error))
}
