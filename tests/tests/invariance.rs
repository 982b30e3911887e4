//! The same bytes for any number of threads and any batch size, on each numeric path that this CPU has.

use std::collections::BTreeMap;
use std::path::Path;

use qlaunch_tests::checkpoint::read_folder;
use qlaunch_tests::places::tiny_llama;
use qlaunch_tests::programs::{Quantize, evaluate, perplexity};
use qlaunch_tests::random_model::{self, specimens};
use qlaunch_tests::{places, requirement};

const RECIPE: &str = "general/ptq/nvfp4_default-kv_fp8";

/// Digest of every tensor of a checkpoint.
type Digests = BTreeMap<String, String>;

/// Threads and batch sizes that must not matter.
const SPLITS: [[&str; 4]; 4] = [
    ["--threads", "2", "--batch-size", "8"],
    ["--threads", "1", "--batch-size", "8"],
    ["--threads", "2", "--batch-size", "3"],
    ["--threads", "1", "--batch-size", "1"],
];

fn quantize(model: &Path, path: &str, split: &[&str]) -> Digests {
    let work = tempfile::tempdir().unwrap();
    let out = work.path().join("out");
    let size = ["--samples", "11", "--seq-len", "96", "--numeric-path", path];
    Quantize::new(model, RECIPE, &out).flags(&size).flags(split).run().json();
    read_folder(&out).into_iter().map(|(name, tensor)| (name, tensor.digest())).collect()
}

/// Whether this machine can compute on the path, by the flags of its CPU.
#[cfg(not(target_arch = "x86_64"))]
fn has(path: &str) -> bool {
    path == "portable"
}

/// Whether this machine can compute on the path, by the flags of its CPU.
#[cfg(target_arch = "x86_64")]
fn has(path: &str) -> bool {
    match path {
        "avx512bf16" => std::arch::is_x86_feature_detected!("avx512bf16"),
        "avx2" => std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"),
        _ => true,
    }
}

fn check(path: &str) {
    if !has(path) {
        requirement::note("invariance", &format!("a CPU with `{path}`"));
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let specimen = specimens().into_iter().find(|specimen| specimen.has_head_norms()).unwrap();
    let random = work.path().join("model");
    random_model::write(&specimen, &random);
    for model in [tiny_llama(), random] {
        let first = quantize(&model, path, &SPLITS[0]);
        for split in &SPLITS[1..] {
            let other = quantize(&model, path, split);
            let differing: Vec<&String> = first.keys().filter(|name| first[*name] != other[*name]).collect();
            assert!(differing.is_empty(), "{path} {split:?}: other bytes in {differing:?}");
        }
    }
}

#[test]
fn threads_and_batches_do_not_matter_on_avx512bf16() {
    check("avx512bf16");
}

#[test]
fn threads_and_batches_do_not_matter_on_avx2() {
    check("avx2");
}

#[test]
fn threads_and_batches_do_not_matter_on_the_portable_path() {
    check("portable");
}

#[test]
fn the_paths_agree_with_each_other_on_the_perplexity() {
    let reference =
        places::read_json(&places::golden("modelopt/tiny-llama/results.json"))["perplexity"]["bf16"]
            .as_f64()
            .unwrap();
    let home = tempfile::tempdir().unwrap();
    for path in ["avx512bf16", "avx2", "portable"].into_iter().filter(|path| has(path)) {
        let mut command = qlaunch_tests::programs::qlaunch(home.path());
        command.arg("eval").arg(tiny_llama()).arg("--data").arg(places::evaluation_ids());
        command.args(["--seq-len", "512", "--samples", "32", "--format", "json", "--numeric-path", path]);
        let ours = perplexity(&qlaunch_tests::programs::finish(command).json());
        assert!((ours / reference - 1.0).abs() < 0.001, "{path}: perplexity {ours}, reference {reference}");
    }
}

#[test]
fn a_path_that_this_cpu_lacks_is_refused() {
    let Some(path) = ["avx512bf16", "avx2"].into_iter().find(|path| !has(path)) else {
        requirement::note("refusing a numeric path", "a CPU without one: this one has them all");
        return;
    };
    let work = tempfile::tempdir().unwrap();
    let call =
        Quantize::new(&tiny_llama(), RECIPE, &work.path().join("out")).flags(&["--numeric-path", path]).run();
    call.assert_refused(3, &[path]);
    // The default is one that it has.
    assert!(perplexity(&evaluate(&tiny_llama(), &places::evaluation_ids(), 64, Some(1))).is_finite());
}
