//! What ModelOpt 0.47 makes of the example model, qlaunch makes too: bytes, scales, configs, perplexity.

use std::path::Path;

use serde_json::Value;

use qlaunch_tests::checkpoint::{Tensor, read_folder};
use qlaunch_tests::places::{evaluation_ids, golden, read_json, tiny_llama};
use qlaunch_tests::programs::{Quantize, evaluate, perplexity};

/// Windows and tokens a window over which ModelOpt's perplexities were taken.
const WINDOWS: usize = 32;
const WINDOW_TOKENS: usize = 512;

#[test]
fn fp8_with_fp8_kv_cache_is_what_modelopt_exports() {
    compare_with_modelopt("fp8_default-kv_fp8");
}

#[test]
fn nvfp4_with_fp8_kv_cache_is_what_modelopt_exports() {
    compare_with_modelopt("nvfp4_default-kv_fp8");
}

#[test]
fn nvfp4_in_the_mlp_only_is_what_modelopt_exports() {
    compare_with_modelopt("nvfp4_mlp_only-kv_fp8");
}

#[test]
fn weight_only_nvfp4_is_what_modelopt_exports() {
    compare_with_modelopt("nvfp4_weight_only-kv_fp16");
}

#[test]
fn the_unquantized_perplexity_is_the_reference_within_a_twentieth_of_a_per_cent() {
    compare_perplexity(&tiny_llama(), "bf16", 0.0005);
}

/// Quantizes the example model by a shipped recipe and holds the result against ModelOpt's.
fn compare_with_modelopt(recipe: &str) {
    let work = tempfile::tempdir().unwrap();
    let out = work.path().join("checkpoint");
    Quantize::new(&tiny_llama(), &format!("general/ptq/{recipe}"), &out).run().json();
    let expected = golden(&format!("tiny-llama/{recipe}"));
    compare_tensors(&read_folder(&out), &read_json(&expected.join("tensors.json")));
    for name in ["config.json", "hf_quant_config.json"] {
        let (mut ours, mut theirs) = (read_json(&out.join(name)), read_json(&expected.join(name)));
        for config in [&mut ours, &mut theirs] {
            config.as_object_mut().unwrap().remove("transformers_version");
        }
        assert_eq!(ours, theirs, "{name} differs from ModelOpt's");
    }
    compare_perplexity(&out, recipe, 0.005);
}

fn compare_perplexity(checkpoint: &Path, name: &str, tolerance: f64) {
    let results = read_json(&golden("tiny-llama/results.json"));
    let theirs = results["perplexity"][name].as_f64().unwrap();
    let evaluation = evaluate(checkpoint, &evaluation_ids(), WINDOW_TOKENS, Some(WINDOWS));
    let ours = perplexity(&evaluation);
    let difference = ours / theirs - 1.0;
    eprintln!("{name}: perplexity {ours:.4}, reference {theirs:.4} ({:+.4}%)", 100.0 * difference);
    assert!(difference.abs() <= tolerance, "{name}: perplexity {ours}, reference {theirs}");
    let scored = WINDOWS * (WINDOW_TOKENS - 1);
    assert_eq!(
        evaluation["tokens"].as_u64(),
        Some(scored as u64),
        "each window scores all but its first token"
    );
}

/// Same names; same bytes, except that scales derived from activations may differ by their tolerance.
fn compare_tensors(ours: &std::collections::BTreeMap<String, Tensor>, theirs: &Value) {
    let theirs = theirs.as_object().unwrap();
    let missing: Vec<&String> = theirs.keys().filter(|name| !ours.contains_key(*name)).collect();
    let extra: Vec<&String> = ours.keys().filter(|name| !theirs.contains_key(*name)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing tensors {missing:?}, extra tensors {extra:?}");
    let faults: Vec<String> = theirs
        .iter()
        .filter_map(|(name, entry)| {
            let is_nvfp4 = theirs.contains_key(&name.replace("input_scale", "weight_scale_2"));
            compare_tensor(name, &ours[name], entry, is_nvfp4)
        })
        .collect();
    assert!(faults.is_empty(), "{} of {} tensors differ:\n{}", faults.len(), theirs.len(), faults.join("\n"));
}

/// The fault of one tensor, if any.
fn compare_tensor(name: &str, ours: &Tensor, theirs: &Value, is_nvfp4: bool) -> Option<String> {
    let shape: Vec<usize> = serde_json::from_value(theirs["shape"].clone()).unwrap();
    if theirs["dtype"] != ours.dtype.as_str() || shape != ours.shape {
        return Some(format!("{name}: {} {:?}, ModelOpt has {theirs}", ours.dtype, ours.shape));
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    if !["input_scale", "k_scale", "v_scale"].contains(&last) {
        let same = theirs["sha256"] == ours.digest().as_str();
        return (!same).then(|| format!("{name}: other bytes than ModelOpt's"));
    }
    // A scale is amax over the largest value of its format: 448 for E4M3, 6 · 448 for NVFP4's two levels.
    let largest = if last == "input_scale" && is_nvfp4 { 6.0 * 448.0 } else { 448.0 };
    let (mine, reference) = (f64::from(ours.scalar()), theirs["value"].as_f64().unwrap());
    let tolerance = (0.01 * reference).max(2.0 * bf16_ulp(reference * largest) / largest);
    let fits = (mine - reference).abs() <= tolerance;
    (!fits).then(|| {
        format!("{name}: {mine}, ModelOpt has {reference} ({:+.2}%)", 100.0 * (mine / reference - 1.0))
    })
}

/// Distance between neighbouring bf16 numbers (8 significant bits) around a positive value.
fn bf16_ulp(value: f64) -> f64 {
    2f64.powi(value.log2().floor() as i32 - 7)
}

#[test]
fn the_comparison_sees_a_changed_byte_a_wrong_shape_and_a_scale_that_is_off() {
    let scale =
        |value: f32| Tensor { dtype: "F32".into(), shape: vec![], bytes: value.to_le_bytes().to_vec() };
    let entry = |value: f32| serde_json::json!({"dtype": "F32", "shape": [], "value": value, "sha256": scale(value).digest()});
    assert_eq!(compare_tensor("a.weight_scale", &scale(0.5), &entry(0.5), false), None);
    assert!(
        compare_tensor("a.weight_scale", &scale(0.500_001), &entry(0.5), false).is_some(),
        "weights are exact"
    );
    assert_eq!(compare_tensor("a.input_scale", &scale(0.5045), &entry(0.5), false), None, "within 1%");
    assert!(compare_tensor("a.input_scale", &scale(0.51), &entry(0.5), false).is_some(), "2% is too much");
    let reshaped = Tensor { shape: vec![1], ..scale(0.5) };
    assert!(compare_tensor("a.input_scale", &reshaped, &entry(0.5), false).is_some(), "a shape is exact");
    assert!((bf16_ulp(1.0) - 1.0 / 128.0).abs() < 1e-12 && (bf16_ulp(255.0) - 1.0).abs() < 1e-12);
}
