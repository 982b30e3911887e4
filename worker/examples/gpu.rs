//! Measures a GPU: the bandwidth of the codecs' kernels against a copy on the device, and the forward pass of calibration through
//! a random model of the shape of Llama 3 8B, every linear's input measured, its layers read from files; `tests/gpu/run.sh` runs it.
//!
//! usage: gpu [HIDDEN LAYERS SAMPLES]    (4096 32 64; smaller ones show that it works, and say nothing of speed)
//!
//! Prints one JSON object. Bytes of a kernel are what it reads and writes; of a copy, twice its size.

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use qlaunch_shared::model::Model;
use qlaunch_shared::{Error, Result};
use qlaunch_worker::libraries::Places;
use qlaunch_worker::network::{CacheSide, Inputs, Network, SourceWeights, Tap, Weights};
use qlaunch_worker::ops::{Backend, Coding, CudaBackend, Cut, Mx};
use qlaunch_worker::tensor::{DType, MappedCheckpoint};
use qlaunch_worker::tokens::Samples;
use serde_json::{Value, json};

use common::noise;

const LENGTH: usize = 512;
const BATCH: usize = 8;
/// Random numbers after which weights repeat; no width divides it.
const NOISE: usize = 8_000_009;
/// Times that a kernel is queued for one figure.
const RUNS: usize = 50;

fn main() -> Result<()> {
    let sizes: Vec<usize> = std::env::args().skip(1).filter_map(|size| size.parse().ok()).collect();
    let [hidden, layers, samples] = sizes.try_into().unwrap_or([4096, 32, 64]);
    let gpu = CudaBackend::open(0, 8, &Places::gather())?;
    let report = json!({
        "path": gpu.numeric_path().name(),
        "codecs": codecs(&gpu, [4 * hidden, 2 * hidden])?,
        "forward": forward(&gpu, (hidden, layers, samples))?,
    });
    writeln!(std::io::stdout(), "{report}").map_err(|error| Error::bug(format!("cannot print: {error}")))
}

/// Gigabytes in a second of each codec's kernel, and the share of a copy's.
fn codecs(gpu: &CudaBackend, shape: [usize; 2]) -> Result<Value> {
    let [rows, columns] = shape;
    let count = rows * columns;
    let weight = noise(DType::BF16, &shape, 0.02)?;
    let copied = (4 * count) as f64 / gpu.time_copy(weight.view(), RUNS)?;
    let row = Cut { shape, width: columns, height: 1 };
    let square = Cut { shape, width: 128, height: 128 };
    let block = Cut { shape, width: 128, height: 1 };
    let ones = vec![1f32; count / 16];
    let scales = |cut: Cut| &ones[..cut.count()];
    let fixed =
        Coding::Nvfp4Fixed { block: 16, amax: 1.0, ceiling: 448.0, tensor: 1.0 / 2688.0, magnitudes: &ones };
    let nibbles = count / 2 + count / 16;
    let all = [
        ("fp8", Coding::Fp8(1.0), count),
        ("fp8_channel", Coding::Fp8Runs(row, scales(row)), count),
        ("fp8_block", Coding::Fp8Runs(square, scales(square)), count),
        ("int8_channel", Coding::Int8Runs(row, scales(row)), count),
        ("int4", Coding::Int4Pairs(block, scales(block)), count / 2),
        ("nvfp4", Coding::Nvfp4 { block: 16, tensor: 1e-5, sixfold: 6e-5 }, nibbles),
        ("nvfp4_static", fixed, nibbles),
        ("mxfp4", Coding::Mx(Mx::Fp4), count / 2),
        ("mxfp6", Coding::Mx(Mx::Fp6), count),
        ("mxfp8", Coding::Mx(Mx::Fp8), count),
        ("mxint8", Coding::Mx(Mx::Int8), count),
        ("nf4", Coding::Nf4, count / 2),
    ];
    let mut report = BTreeMap::new();
    for (name, coding, written) in all {
        let speed = (2 * count + written) as f64 / gpu.time_coding(weight.view(), coding, RUNS)?;
        report.insert(
            name,
            json!({"gb_per_s": (speed / 1e9).round(), "of_copy": (speed / copied * 1e3).round() / 1e3}),
        );
    }
    Ok(
        json!({"shape": shape, "copy_gb_per_s": (copied / 1e9).round(), "kernels": report, "target_of_copy": 0.8}),
    )
}

/// Tokens in a second through all layers, which come from files while others are computed; and how long they take to come alone.
fn forward(gpu: &CudaBackend, (hidden, layers, samples): (usize, usize, usize)) -> Result<Value> {
    let folder = std::env::temp_dir().join(format!("qlaunch-gpu-{}", std::process::id()));
    let timed = random_model(&folder, hidden, layers).and_then(|()| time(gpu, &folder, samples));
    std::fs::remove_dir_all(&folder).map_err(|error| Error::io("remove", &folder, &error))?;
    let [seconds, bringing, bytes] = timed?;
    Ok(json!({
        "hidden": hidden, "layers": layers, "samples": samples, "tokens": LENGTH, "batch": BATCH,
        "seconds": (seconds * 1e3).round() / 1e3,
        "tokens_per_second": ((samples * LENGTH) as f64 / seconds).round(),
        "bringing_alone_seconds": (bringing * 1e3).round() / 1e3,
        "bringing_gb_per_s": (bytes / bringing / 1e8).round() / 10.0,
    }))
}

/// Seconds of the forward pass, seconds that the weights of all layers take to come, and their bytes.
fn time(gpu: &CudaBackend, folder: &Path, samples: usize) -> Result<[f64; 3]> {
    let model = Model::open(folder)?;
    let files = MappedCheckpoint::open(model.files.clone())?;
    let weights = SourceWeights::new(&model, &files);
    let vocabulary = model.config.vocabulary;
    let ids = |count: usize| (0..count * LENGTH).map(|at| (at * 7919 % vocabulary) as u32).collect();
    let network = Network::new(gpu, &weights);
    let run = |count: usize| {
        let samples = Samples { ids: ids(count), length: LENGTH, skipped: 0 };
        network.run(&samples, BATCH, &mut Magnitudes, &mut |_| Ok(()))
    };
    run(1)?;
    let begun = Instant::now();
    gpu.download(&run(samples)?[0])?;
    let seconds = begun.elapsed().as_secs_f64();
    let (begun, mut bytes) = (Instant::now(), 0);
    for (module, _) in model.modules.iter().enumerate().filter(|(_, part)| part.layer.is_some()) {
        if model.modules[module].role.weight_shape().is_none() {
            continue;
        }
        let mut brought = None;
        gpu.beside(&mut || {
            brought = Some(weights.weight(module).map(|weight| (2 * weight.len(), gpu.bring(weight))));
        });
        let (own, tensor) = brought.ok_or_else(|| Error::bug("a weight was not brought"))??;
        bytes += own;
        drop(tensor?);
    }
    gpu.free_memory()?;
    Ok([seconds, begun.elapsed().as_secs_f64(), bytes as f64])
}

/// Measures what max calibration measures.
struct Magnitudes;

impl<B: Backend> Tap<B> for Magnitudes {
    fn input(&mut self, backend: &B, readers: &[usize], x: &B::Tensor) -> Result<Inputs<B::Tensor>> {
        backend.magnitude(x)?.finite()?;
        Ok(vec![None; readers.len()])
    }

    fn cache(&mut self, backend: &B, _layer: usize, _side: CacheSide, x: &mut B::Tensor) -> Result<()> {
        backend.magnitude(x)?.finite().map(drop)
    }
}

/// The folder of a model of random weights, which repeat: 16 GB at full size.
fn random_model(folder: &Path, hidden: usize, layers: usize) -> Result<()> {
    let (inner, vocabulary) = (hidden / 2 * 7, 128_256 * hidden / 4096);
    let (heads, keys) = (hidden / 128, (hidden / 512).max(1));
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": keys, "head_dim": 128, "vocab_size": vocabulary,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "hidden_act": "silu",
        "tie_word_embeddings": false,
    });
    let mut tensors = vec![
        ("model.embed_tokens".to_owned(), vec![vocabulary, hidden]),
        ("lm_head".to_owned(), vec![vocabulary, hidden]),
        ("model.norm".to_owned(), vec![hidden]),
    ];
    let (queries, keys) = (heads * 128, keys * 128);
    for layer in 0..layers {
        let own = [
            ("self_attn.q_proj", vec![queries, hidden]),
            ("self_attn.k_proj", vec![keys, hidden]),
            ("self_attn.v_proj", vec![keys, hidden]),
            ("self_attn.o_proj", vec![hidden, queries]),
            ("mlp.gate_proj", vec![inner, hidden]),
            ("mlp.up_proj", vec![inner, hidden]),
            ("mlp.down_proj", vec![hidden, inner]),
            ("input_layernorm", vec![hidden]),
            ("post_attention_layernorm", vec![hidden]),
        ];
        tensors.extend(own.map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape)));
    }
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let begin = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(
            format!("{name}.weight"),
            json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}),
        );
    }
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let noise = noise(DType::BF16, &[NOISE], 0.02)?;
    let noise = noise.view().to_bytes();
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("config.json"), config.to_string())?;
        let mut file = std::fs::File::create(folder.join("model.safetensors"))?;
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for begin in (0..end).step_by(noise.len()) {
            file.write_all(&noise[..noise.len().min(end - begin)])?;
        }
        Ok(())
    };
    write().map_err(|error| Error::io("write", folder, &error))
}
