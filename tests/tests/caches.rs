//! KV caches with offsets and rotations: planned, written and evaluated as one and the same thing.

use std::path::{Path, PathBuf};

use qlaunch_tests::checkpoint::read_folder;
use qlaunch_tests::places::{calibration_ids, evaluation_ids, read_json, tiny_llama};
use qlaunch_tests::programs::{Quantize, evaluate, perplexity, run};
use serde_json::Value;

/// Quantizers off, and one small linear in FP8: what the cache costs is seen alone.
const ONE_LINEAR: &str = "\
quantize:
  algorithm: max
  quant_cfg:
    - {quantizer_name: '*', enable: false}
    - {quantizer_name: '*layers.0.self_attn.o_proj.weight_quantizer', cfg: {num_bits: e4m3}}
";

/// A recipe of one linear and a cache: the unit of that name, or nothing but these entries.
fn recipe(work: &Path, name: &str, entries: &str) -> PathBuf {
    let head = "metadata: {recipe_type: ptq, description: one linear and the cache}\n";
    let imports = format!("imports: {{cache: configs/ptq/units/kv_{name}}}\n");
    let text = match entries {
        "" => format!("{head}{imports}{ONE_LINEAR}    - $import: cache\n"),
        entries => format!("{head}{ONE_LINEAR}    - {entries}\n"),
    };
    let path = work.join(format!("{name}.yaml"));
    std::fs::write(&path, text).unwrap();
    path
}

/// Makes a checkpoint with this KV preset and measures it.
fn made(work: &Path, preset: &str, samples: &str) -> (PathBuf, f64) {
    let out = work.join(format!("{preset}-{samples}"));
    Quantize::new(&tiny_llama(), recipe(work, preset, "").to_str().unwrap(), &out)
        .flags(&["--samples", samples])
        .run()
        .json();
    let value = perplexity(&evaluate(&out, &evaluation_ids(), 512, Some(8)));
    (out, value)
}

#[test]
fn an_affine_cache_is_planned_written_and_read_with_its_offsets() {
    let work = tempfile::tempdir().unwrap();
    let plain = perplexity(&evaluate(&tiny_llama(), &evaluation_ids(), 512, Some(8)));
    for (format, worst) in [("fp8", 1.005), ("nvfp4", 1.05)] {
        let (out, affine) = made(work.path(), &format!("{format}_affine"), "32");
        let tensors = read_folder(&out);
        let config = read_json(&out.join("config.json"));
        let heads = config["num_key_value_heads"].as_u64().unwrap() as usize;
        let width = (config["hidden_size"].as_u64().unwrap()
            / config["num_attention_heads"].as_u64().unwrap()) as usize;
        for (name, side) in [("k_proj", "k"), ("v_proj", "v")] {
            let offset = &tensors[&format!("model.layers.3.self_attn.{name}.{side}_bias")];
            assert_eq!((offset.dtype.as_str(), &offset.shape[..]), ("BF16", &[1, heads, 1, width][..]));
            assert!(offset.bytes.chunks(2).any(|two| two != [0, 0]), "offsets of nothing but zeros");
            assert!(tensors[&format!("model.layers.3.self_attn.{name}.{side}_scale")].scalar() > 0.0);
        }
        let recipe = recipe(work.path(), &format!("{format}_affine"), "");
        let model = tiny_llama();
        let arguments =
            ["plan", model.to_str().unwrap(), "--recipe", recipe.to_str().unwrap(), "--format", "json"];
        let plan = run(arguments).json();
        let bytes = std::fs::metadata(out.join("model.safetensors")).unwrap().len();
        assert_eq!(plan["totals"]["bytes"].as_u64(), Some(bytes), "the plan's size is the file's");
        // An offset must be taken off and added back: one that is only declared costs tens of per cent.
        let (_, usual) = made(work.path(), format, "32");
        assert!(
            (affine / plain).max(plain / affine) < worst,
            "{format}: {affine} with offsets, {plain} without a cache"
        );
        eprintln!("{format}: {plain:.4} as it is, {usual:.4} rounded, {affine:.4} with offsets");
        assert_ne!(affine, usual);
    }
}

#[test]
fn offsets_that_are_gone_or_moved_are_noticed() {
    let work = tempfile::tempdir().unwrap();
    let (out, whole) = made(work.path(), "nvfp4_affine", "8");
    let weights = out.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    // Other offsets are another model.
    let mut moved = bytes.clone();
    for layer in 0..8 {
        let place = &header[format!("model.layers.{layer}.self_attn.v_proj.v_bias")]["data_offsets"];
        let place = |at: usize| 8 + length + place[at].as_u64().unwrap() as usize;
        for two in moved[place(0)..place(1)].chunks_mut(2) {
            two.copy_from_slice(&[0x00, 0x42]); // 32 in bf16, far from every value
        }
    }
    std::fs::write(&weights, &moved).unwrap();
    let other = perplexity(&evaluate(&out, &evaluation_ids(), 512, Some(8)));
    assert!(other > 1.2 * whole, "offsets are not read: {other} from {whole}");
    // And offsets that are declared but not there are refused.
    let text = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap().replace("v_bias", "v_gone");
    let mut renamed = bytes;
    renamed[8..8 + length].copy_from_slice(text.as_bytes());
    std::fs::write(&weights, &renamed).unwrap();
    let data = evaluation_ids();
    let call = run(["eval".into(), out.into_os_string(), "--data".into(), data.into_os_string()]);
    call.assert_refused(3, &["v_bias", "missing"]);
}

#[test]
fn a_rotated_cache_is_scaled_for_what_the_rotation_leaves() {
    let work = tempfile::tempdir().unwrap();
    let plain = perplexity(&evaluate(&tiny_llama(), &evaluation_ids(), 512, Some(8)));
    let (rotated, value) = made(work.path(), "nvfp4_rotate", "32");
    let (usual, before) = made(work.path(), "nvfp4", "32");
    eprintln!("{plain:.4} as it is, {before:.4} rounded, {value:.4} rotated");
    assert!(value / plain < 1.05, "{value} rotated, {plain} as it is");
    assert_eq!(read_json(&rotated.join("config.json"))["quantization_config"]["kv_cache_rotated"], true);
    let [rotated, usual] = [rotated, usual].map(|folder| read_folder(&folder));
    let width = 32f32;
    for layer in 0..8 {
        let [keys, values] = ["k_proj.k_scale", "v_proj.v_scale"].map(|part| {
            let name = format!("model.layers.{layer}.self_attn.{part}");
            (rotated[&name].scalar(), usual[&name].scalar())
        });
        assert_eq!(values.0, values.1, "values are not rotated");
        assert_ne!(keys.0, keys.1, "keys are scaled as if they were not rotated");
        // A normalized transform of a head makes no value larger or smaller than this.
        let ratio = keys.0 / keys.1;
        assert!((1.0 / width.sqrt()..=width.sqrt()).contains(&ratio), "layer {layer}: {keys:?}");
    }
}

#[test]
fn batches_and_threads_change_no_offset() {
    let work = tempfile::tempdir().unwrap();
    let recipe = recipe(work.path(), "fp8_affine", "");
    let mut all = Vec::new();
    for (batch, threads) in [("8", "1"), ("3", "2")] {
        let out = work.path().join(batch);
        Quantize::new(&tiny_llama(), recipe.to_str().unwrap(), &out)
            .calibration(&calibration_ids())
            .flags(&["--samples", "8", "--batch-size", batch, "--threads", threads])
            .run()
            .json();
        all.push(std::fs::read(out.join("model.safetensors")).unwrap());
    }
    assert!(all[0] == all[1]);
}

#[test]
fn offsets_of_another_kind_and_rotated_values_are_refused_with_what_may_be_written() {
    let work = tempfile::tempdir().unwrap();
    for (name, entry, words) in [
        (
            "positions",
            "{quantizer_name: '*[kv]_bmm_quantizer', cfg: {num_bits: e4m3, bias: {-2: null, type: static}}}",
            "each channel of each head",
        ),
        (
            "dynamic",
            "{quantizer_name: '*[kv]_bmm_quantizer', cfg: {num_bits: e4m3, bias: {-2: null, -4: null, type: dynamic}}}",
            "each channel of each head",
        ),
        (
            "values",
            "{quantizer_name: '*[kv]_bmm_quantizer', cfg: {num_bits: e4m3, rotate: true}}",
            "values cannot be rotated",
        ),
    ] {
        let (model, path) = (tiny_llama(), recipe(work.path(), name, entry));
        let call = run(["plan".into(), model.into_os_string(), "--recipe".into(), path.into_os_string()]);
        call.assert_refused(3, &[words]);
    }
}
