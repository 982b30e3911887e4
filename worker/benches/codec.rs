//! Weight quantization from buffer to buffer, amax pass included, against memcpy of the same source bytes.
//!
//! Both run on the same thread pool in the same process, round by round in turn; the median round counts. Prints one
//! JSON document. `benches/codec/run.sh` pins the threads and keeps the result.

use std::hint::black_box;
use std::time::Instant;

use half::bf16;
use qlaunch_shared::{Error, Result};
use qlaunch_worker::quantize::codec::{amax, fp8, nvfp4};
use rayon::prelude::*;
use serde_json::{Value, json};

/// Side by side with the codecs: elements that one task of memcpy moves.
const CHUNK: usize = 1 << 17;

/// The buffers of one size.
struct Buffers {
    source: Vec<bf16>,
    copy: Vec<bf16>,
    codes: Vec<u8>,
    scales: Vec<u8>,
}

/// Seconds of every round.
#[derive(Default)]
struct Rounds {
    memcpy: Vec<f64>,
    amax: Vec<f64>,
    fp8: Vec<f64>,
    nvfp4: Vec<f64>,
}

fn main() -> Result<()> {
    let setting = |name: &str, default: usize| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (threads, rounds) = (setting("CODEC_THREADS", 2), setting("CODEC_ROUNDS", 15));
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| Error::bug(format!("no thread pool: {e}")))?;
    // A model's worth, and one linear of a small model and of a large one.
    let shapes = [(32768, 4096), (2048, 2048), (14336, 4096)];
    let cases = shapes
        .into_iter()
        .map(|(rows, columns)| pool.install(|| measure(rows, columns, rounds)))
        .collect::<Result<Vec<Value>>>()?;
    let report = json!({ "bench": "codec", "threads": threads, "rounds": rounds, "cases": cases });
    #[expect(clippy::print_stdout, reason = "the result of a bench is its standard output")]
    {
        println!("{report:#}");
    }
    Ok(())
}

fn measure(rows: usize, columns: usize, rounds: usize) -> Result<Value> {
    let mut buffers = Buffers::new(rows * columns);
    let mut seconds = Rounds::default();
    let clock = |run: &mut dyn FnMut() -> Result<()>, rounds: &mut Vec<f64>| -> Result<()> {
        let start = Instant::now();
        run()?;
        rounds.push(start.elapsed().as_secs_f64());
        Ok(())
    };
    // Small tensors are repeated until a round takes long enough to be measured.
    let repeats = (32usize << 20).div_ceil(rows * columns);
    // The first round only warms up.
    for _ in 0..=rounds {
        clock(&mut || (0..repeats).try_for_each(|_| buffers.memcpy()), &mut seconds.memcpy)?;
        clock(&mut || (0..repeats).try_for_each(|_| buffers.amax()), &mut seconds.amax)?;
        clock(&mut || (0..repeats).try_for_each(|_| buffers.fp8()), &mut seconds.fp8)?;
        clock(&mut || (0..repeats).try_for_each(|_| buffers.nvfp4(columns)), &mut seconds.nvfp4)?;
    }
    let bytes = (rows * columns * 2 * repeats) as f64;
    let speed = |rounds: &mut Vec<f64>| {
        let rounds = &mut rounds[1..];
        rounds.sort_by(f64::total_cmp);
        bytes / rounds[rounds.len() / 2] / 1e9
    };
    let memcpy = speed(&mut seconds.memcpy);
    let mut against = |rounds: &mut Vec<f64>| {
        let speed = speed(rounds);
        json!({ "source_gb_per_s": rounded(speed), "of_memcpy": rounded(speed / memcpy) })
    };
    Ok(json!({
        "rows": rows,
        "columns": columns,
        "source_mib": rows * columns * 2 / (1 << 20),
        "memcpy_gb_per_s": rounded(memcpy),
        "amax": against(&mut seconds.amax),
        "fp8": against(&mut seconds.fp8),
        "nvfp4": against(&mut seconds.nvfp4),
    }))
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl Buffers {
    /// Weights as a trained linear has them: bell-shaped, a few channels ten times as wide.
    fn new(length: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / 16_777_216.0 - 0.5
        };
        let source = (0..length)
            .map(|i| {
                let bell = uniform() + uniform() + uniform() + uniform();
                bf16::from_f32(bell * if i % 997 == 0 { 0.4 } else { 0.04 })
            })
            .collect();
        Self {
            source,
            copy: vec![bf16::ONE; length],
            codes: vec![1; length],
            scales: vec![1; length / nvfp4::BLOCK],
        }
    }

    fn memcpy(&mut self) -> Result<()> {
        self.copy
            .par_chunks_mut(CHUNK)
            .zip(self.source.par_chunks(CHUNK))
            .for_each(|(copy, source)| copy.copy_from_slice(source));
        black_box(&self.copy);
        Ok(())
    }

    fn amax(&mut self) -> Result<()> {
        black_box(amax(&self.source)?);
        Ok(())
    }

    fn fp8(&mut self) -> Result<()> {
        let encoder = fp8::Encoder::new(amax(&self.source)?)?;
        encoder.encode(&self.source, &mut self.codes)?;
        black_box(&self.codes);
        Ok(())
    }

    fn nvfp4(&mut self, columns: usize) -> Result<()> {
        let encoder = nvfp4::Encoder::new(amax(&self.source)?, nvfp4::BLOCK)?;
        let codes = &mut self.codes[..self.source.len() / 2];
        encoder.encode(&self.source, columns, nvfp4::Encoded { codes, scales: &mut self.scales })?;
        black_box(&self.codes);
        Ok(())
    }
}
