//! A model whose activations have outliers that no example model has: what ModelOpt 0.47 makes of it, qlaunch makes too.
//!
//! Four of 256 hidden channels stand out by a factor of 32, which costs NVFP4 with dynamic scales a fifth of the perplexity, and
//! which SmoothQuant and AWQ take away.

use std::path::{Path, PathBuf};

use qlaunch_tests::checkpoint::read_folder;
use qlaunch_tests::modelopt::{Closeness, faults};
use qlaunch_tests::outliers;
use qlaunch_tests::places::{evaluation_ids, golden, read_json};
use qlaunch_tests::programs::{Quantize, evaluate, perplexity};

/// What ModelOpt has is the perplexity of what it exports; ours may be better or worse by this share of it.
const CLOSE: f64 = 0.005;

macro_rules! formats {
    ($($test:ident: $golden:literal $recipe:literal $($cache:literal)? => $closeness:expr;)*) => {$(
        #[test]
        fn $test() {
            compare($golden, $recipe, &[$("--kv-cache", $cache)?], $closeness);
        }
    )*};
}

formats! {
    fp8_with_fp8_cache: "fp8-kv_fp8" "fp8" "fp8" => Closeness::Bytes;
    nvfp4_with_fp8_cache: "nvfp4-kv_fp8" "nvfp4" "fp8" => Closeness::Bytes;
    nvfp4_in_the_mlp: "nvfp4_mlp_only" "nvfp4_mlp_only" => Closeness::Bytes;
    nvfp4_weight_only: "w4a16_nvfp4" "w4a16_nvfp4" => Closeness::Bytes;
    nvfp4_weights_under_fp8: "w4a8_nvfp4_fp8" "w4a8_nvfp4_fp8" => Closeness::Bytes;
    nvfp4_mse_sweep: "nvfp4_w4a4_weight_mse_fp8_sweep" "nvfp4_w4a4_weight_mse_fp8_sweep" => Closeness::Bytes;
    mxfp8: "mxfp8" "mxfp8" => Closeness::Bytes;
    int8: "int8" "int8" => Closeness::Bytes;
    int8_smoothquant: "int8_smoothquant" "int8_smoothquant" => Closeness::Shapes;
    int4_awq: "int4_awq" "int4_awq" => Closeness::Shapes;
    w4a8_awq: "w4a8_awq_beta" "w4a8_awq_beta" => Closeness::Shapes;
    nvfp4_awq_lite: "nvfp4_awq_lite" "nvfp4_awq_lite" => Closeness::Shapes;
}

/// Writes the model into a folder of a test's.
fn model(work: &Path) -> PathBuf {
    let folder = work.join("outliers");
    outliers::write(&folder);
    folder
}

#[test]
fn outliers_change_activations_and_nothing_else() {
    let plain = golden("modelopt/tiny-llama/results.json");
    let expected = read_json(&plain)["perplexity"]["bf16"].as_f64().unwrap();
    let work = tempfile::tempdir().unwrap();
    let found = perplexity(&evaluate(&model(work.path()), &evaluation_ids(), 512, Some(32)));
    assert!((found / expected - 1.0).abs() < 0.0005, "{found}, and {expected} without outliers");
}

fn compare(name: &str, recipe: &str, cache: &[&str], closeness: Closeness) {
    let work = tempfile::tempdir().unwrap();
    let out = work.path().join("checkpoint");
    Quantize::new(&model(work.path()), recipe, &out).flags(cache).run().json();
    let theirs = read_json(&golden(&format!("modelopt/outliers/{name}/tensors.json")));
    let faults = faults(&read_folder(&out), &theirs, closeness);
    assert!(faults.is_empty(), "{} tensors differ:\n{}", faults.len(), faults.join("\n"));
    let results = read_json(&golden("modelopt/outliers/results.json"));
    let theirs = results["perplexity"][name]["exported"].as_f64().unwrap();
    let ours = perplexity(&evaluate(&out, &evaluation_ids(), 512, Some(32)));
    let difference = ours / theirs - 1.0;
    eprintln!("{name}: perplexity {ours:.4}, ModelOpt {theirs:.4} ({:+.3}%)", 100.0 * difference);
    assert!(difference.abs() <= CLOSE, "{name}: perplexity {ours}, ModelOpt {theirs}");
}
