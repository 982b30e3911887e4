//! Weight quantization from buffer to buffer, amax pass included, against memcpy of the same source bytes.
//!
//! Both run on the same thread pool in the same process, round by round in turn; the best round of each counts, because
//! what else a machine does can only slow a round down. Prints one JSON document, which `benches/codec/run.sh` keeps.

use std::hint::black_box;
use std::time::Instant;

use half::bf16;
use qlaunch_shared::numerics::{Format, Nvfp4Scales};
use qlaunch_shared::{Error, Result};
use qlaunch_worker::quantize::codec::{amax, fp8, nvfp4};
use qlaunch_worker::quantize::{magnitudes, quantize_weight};
use qlaunch_worker::tensor::host::{Elements, TensorView};
use rayon::prelude::*;
use serde_json::{Value, json};

/// Side by side with the codecs: elements that one task of memcpy moves.
const CHUNK: usize = 1 << 17;

/// The buffers of one size.
struct Buffers {
    columns: usize,
    source: Vec<bf16>,
    copy: Vec<bf16>,
    codes: Vec<u8>,
    scales: Vec<u8>,
}

/// Seconds of the best round so far: by the clock on the wall, and of all processors together.
#[derive(Clone, Copy)]
struct Best {
    wall: f64,
    cpu: f64,
}

fn main() -> Result<()> {
    let setting = |name: &str, default: usize| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (threads, rounds) = (setting("CODEC_THREADS", 2), setting("CODEC_ROUNDS", 30));
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

/// What one round does to the buffers.
type Round = Box<dyn Fn(&mut Buffers) -> Result<()>>;

/// Formats that go through the door of all codecs, which allocates what it gives back.
const FORMATS: [(&str, Format); 12] = [
    ("fp8_channel", Format::Fp8Channel),
    ("fp8_squares", Format::Fp8Block { block: 128 }),
    ("int8_channel", Format::Int8Channel),
    ("int4", Format::Int4 { block: 128 }),
    ("int4_fp8", Format::Int4Fp8 { block: 128 }),
    ("nvfp4_static", Format::Nvfp4 { block: 16, scales: Nvfp4Scales::Static }),
    ("nvfp4_under_fp8", Format::Nvfp4 { block: 32, scales: Nvfp4Scales::UnderFp8 }),
    ("mxfp4", Format::Mxfp4),
    ("mxfp6", Format::Mxfp6),
    ("mxfp8", Format::Mxfp8),
    ("mxint8", Format::Mxint8),
    ("nf4", Format::Nf4),
];

fn measure(rows: usize, columns: usize, rounds: usize) -> Result<Value> {
    let mut buffers = Buffers::new(rows, columns);
    let mut kinds: Vec<(&str, Round)> = vec![
        ("memcpy", Box::new(Buffers::memcpy)),
        ("amax", Box::new(Buffers::amax)),
        ("fp8", Box::new(Buffers::fp8)),
        ("nvfp4", Box::new(Buffers::nvfp4)),
    ];
    for (name, format) in FORMATS {
        kinds.push((name, Box::new(move |buffers: &mut Buffers| buffers.stored(format))));
    }
    let mut best = vec![Best { wall: f64::INFINITY, cpu: f64::INFINITY }; kinds.len()];
    // The first round only warms up.
    for round in 0..=rounds {
        for ((_, run), best) in kinds.iter().zip(&mut best) {
            let (cpu, wall) = (cpu_seconds(), Instant::now());
            run(&mut buffers)?;
            let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
            if round > 0 {
                *best = Best { wall: best.wall.min(wall), cpu: best.cpu.min(cpu) };
            }
        }
    }
    let bytes = (rows * columns * 2) as f64;
    let memcpy = best[0];
    let mut case = json!({ "rows": rows, "columns": columns, "source_mib": bytes / (1 << 20) as f64 });
    for ((name, _), best) in kinds.iter().zip(best) {
        case[name] = json!({
            "source_gb_per_s": rounded(bytes / best.wall / 1e9),
            "of_memcpy": rounded(memcpy.wall / best.wall),
            "of_memcpy_by_cpu_time": rounded(memcpy.cpu / best.cpu),
        });
    }
    Ok(case)
}

/// What all threads of this process have spent.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl Buffers {
    /// Weights as a trained linear has them: bell-shaped, a few channels ten times as wide.
    fn new(rows: usize, columns: usize) -> Self {
        let length = rows * columns;
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
            columns,
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

    /// Magnitudes and stored tensors through the door of all codecs.
    fn stored(&mut self, format: Format) -> Result<()> {
        let shape = [self.source.len() / self.columns, self.columns];
        let view = TensorView::new(&shape, Elements::BF16(&self.source))?;
        black_box(quantize_weight(view, format, &magnitudes(view, format)?)?);
        Ok(())
    }

    fn nvfp4(&mut self) -> Result<()> {
        let encoder = nvfp4::Encoder::new(amax(&self.source)?, nvfp4::BLOCK)?;
        let codes = &mut self.codes[..self.source.len() / 2];
        encoder.encode(&self.source, self.columns, nvfp4::Encoded { codes, scales: &mut self.scales })?;
        black_box(&self.codes);
        Ok(())
    }
}
