//! File to file: how fast a model's weights become a checkpoint, against a plain copy of the same files, and in how
//! much memory. `benches/file/run.sh` runs it; `QLAUNCH_BENCH_DIR` needs 4 GB of space.
//!
//! The model has the shape of a 1.1 B Llama (hidden 2048, MLP 5632, 22 layers, vocabulary 32000) and random weights; the
//! recipe is NVFP4 weight-only, which needs no forward pass.

use std::error::Error;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use qlaunch_shared::assign::MixedGroups;
use qlaunch_shared::checkpoint::{DType, Layout, PlannedTensor};
use qlaunch_shared::protocol::{JobSpec, Outcome, Quantize, Resources, VERSION};
use qlaunch_shared::recipe::{Library, load_recipe};
use serde_json::json;

const HIDDEN: usize = 2048;
const MLP: usize = 5632;
const LAYERS: usize = 22;
const VOCABULARY: usize = 32_000;
const KEYS: usize = 4 * 64;
const ROUNDS: usize = 3;

fn tensors() -> Vec<PlannedTensor> {
    let tensor =
        |name: String, shape: &[usize]| PlannedTensor { name, dtype: DType::BF16, shape: shape.to_vec() };
    let mut all = vec![tensor("model.embed_tokens.weight".into(), &[VOCABULARY, HIDDEN])];
    for layer in 0..LAYERS {
        let parts: [(&str, &[usize]); 9] = [
            ("self_attn.q_proj", &[HIDDEN, HIDDEN]),
            ("self_attn.k_proj", &[KEYS, HIDDEN]),
            ("self_attn.v_proj", &[KEYS, HIDDEN]),
            ("self_attn.o_proj", &[HIDDEN, HIDDEN]),
            ("mlp.gate_proj", &[MLP, HIDDEN]),
            ("mlp.up_proj", &[MLP, HIDDEN]),
            ("mlp.down_proj", &[HIDDEN, MLP]),
            ("input_layernorm", &[HIDDEN]),
            ("post_attention_layernorm", &[HIDDEN]),
        ];
        all.extend(parts.map(|(part, shape)| tensor(format!("model.layers.{layer}.{part}.weight"), shape)));
    }
    all.push(tensor("model.norm.weight".into(), &[HIDDEN]));
    all.push(tensor("lm_head.weight".into(), &[VOCABULARY, HIDDEN]));
    all
}

/// Weights of about ±0.02 from a linear congruential generator: the codec's speed does not depend on their values.
fn write_model(folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "hidden_size": HIDDEN,
        "intermediate_size": MLP, "num_hidden_layers": LAYERS, "num_attention_heads": 32, "num_key_value_heads": 4,
        "vocab_size": VOCABULARY, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": false
    });
    fs::write(folder.join("config.json"), config.to_string())?;
    let layout = Layout::plan(&tensors(), u64::MAX, &Default::default())?;
    let shard = &layout.shards[0];
    let mut file = BufWriter::with_capacity(1 << 20, fs::File::create(folder.join(&shard.file))?);
    file.write_all(&shard.header)?;
    let mut state = 1u32;
    for _ in 0..(shard.bytes - shard.header.len() as u64) / 2 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let value = (f64::from(state) / f64::from(u32::MAX) - 0.5) * 0.04;
        file.write_all(&half::bf16::from_f64(value).to_le_bytes())?;
    }
    file.flush()?;
    file.get_ref().sync_all()?;
    Ok(())
}

/// Seconds and outcome of one checkpoint through the real worker.
fn quantize(model: &Path, work: &Path) -> Result<(f64, Outcome), Box<dyn Error>> {
    let recipe = load_recipe(&Library::embedded(), "general/ptq/nvfp4_weight_only-kv_fp16", &[])?;
    let spec = JobSpec {
        version: VERSION,
        run: "bench".into(),
        candidate: "file".into(),
        model: model.into(),
        quantize: Some(Quantize {
            recipe,
            mixed_groups: MixedGroups::Refuse,
            silent_experts: Default::default(),
            calibration: None,
            out: None,
            shard_bytes: 10_000_000_000,
            no_digests: true,
            assignment: None,
        }),
        calibrate: Vec::new(),
        store: None,
        rehash: false,
        reproduce: None,
        evaluate: None,
        resources: Resources { threads: Some(2), ..Resources::default() },
    };
    let (path, attempt) = (work.join("spec.json"), work.join("attempt"));
    let _ = fs::remove_dir_all(&attempt);
    fs::write(&path, serde_json::to_vec(&spec)?)?;
    let begun = Instant::now();
    let worker = env!("CARGO_BIN_EXE_qlaunch-worker");
    let status =
        Command::new(worker).arg("run").arg("--spec").arg(&path).arg("--attempt").arg(&attempt).status()?;
    let seconds = begun.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("the worker ended with {status}").into());
    }
    Ok((seconds, serde_json::from_slice(&fs::read(attempt.join("outcome.json"))?)?))
}

/// Seconds of a plain copy, on disk at the end as a checkpoint is.
fn copy(model: &Path, work: &Path) -> Result<f64, Box<dyn Error>> {
    let target = work.join("copy");
    let begun = Instant::now();
    fs::copy(model.join("model.safetensors"), &target)?;
    fs::File::open(&target)?.sync_all()?;
    let seconds = begun.elapsed().as_secs_f64();
    fs::remove_file(&target)?;
    Ok(seconds)
}

fn main() -> Result<(), Box<dyn Error>> {
    let base = std::env::var_os("QLAUNCH_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let work = tempfile::tempdir_in(base)?;
    let model = work.path().join("model");
    write_model(&model)?;
    let source = fs::metadata(model.join("model.safetensors"))?.len();
    let largest = tensors().iter().map(PlannedTensor::bytes).max().unwrap_or(0);
    let (mut fastest, mut copied, mut peak, mut cpu) = (f64::MAX, f64::MAX, 0u64, f64::MAX);
    for _ in 0..ROUNDS {
        copied = copied.min(copy(&model, work.path())?);
        let (seconds, outcome) = quantize(&model, work.path())?;
        fastest = fastest.min(seconds);
        peak = peak.max(outcome.peak_memory);
        cpu = cpu.min(outcome.cpu_seconds);
    }
    let gigabytes = source as f64 / 1e9;
    let bound = (1u64 << 30) + largest;
    let result = json!({
        "bench": "file to file, NVFP4 weight-only, 1.1 B Llama, 2 threads, best of 3",
        "source_gb": gigabytes,
        "seconds": fastest,
        "cpu_seconds": cpu,
        "source_gb_per_second": gigabytes / fastest,
        "copy_gb_per_second": gigabytes / copied,
        "ratio_to_copy": copied / fastest,
        "peak_memory_mib": peak >> 20,
        "bound_mib": bound >> 20,
        "within_bound": peak <= bound,
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{result:#}")?;
    if let Some(path) = std::env::args().skip(1).find(|argument| !argument.starts_with('-')) {
        fs::write(path, format!("{result:#}\n"))?;
    }
    if peak > bound {
        return Err(format!("{} MiB of memory are over the bound of {} MiB", peak >> 20, bound >> 20).into());
    }
    Ok(())
}
