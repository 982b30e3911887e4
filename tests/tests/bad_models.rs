//! A model that cannot be used is refused with its file and a remedy, and leaves nothing that looks like a checkpoint.

use std::path::{Path, PathBuf};

use qlaunch_tests::broken::{VICTIM, good_model, model_with, model_with_config};
use qlaunch_tests::checkpoint::looks_whole;
use qlaunch_tests::places::calibration_ids;
use qlaunch_tests::programs::{Call, Quantize, evaluate, perplexity, run};

/// Exit code of "a file, value or model that was handed in cannot be used".
const INPUT: i32 = 3;

/// Every kind of scale and both passes: activations are observed, weights are encoded.
const RECIPE: &str = "general/ptq/nvfp4_default-kv_fp8";

/// A folder for one model and one checkpoint.
struct Bench {
    work: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { work: tempfile::tempdir().unwrap() }
    }

    fn model(&self) -> PathBuf {
        self.work.path().join("model")
    }

    fn out(&self) -> PathBuf {
        self.work.path().join("out")
    }

    /// Quantizes the model, which must be refused naming each of `words`.
    #[track_caller]
    fn assert_refused(&self, words: &[&str]) {
        quantize(&self.model(), &self.out()).assert_refused(INPUT, words);
        assert!(!looks_whole(&self.out()), "something that looks like a checkpoint was left");
    }
}

fn quantize(model: &Path, out: &Path) -> Call {
    Quantize::new(model, RECIPE, out).flags(&["--samples", "2", "--seq-len", "64"]).run()
}

#[test]
fn the_undamaged_model_is_accepted() {
    let bench = Bench::new();
    good_model(&bench.model());
    quantize(&bench.model(), &bench.out()).json();
    assert!(looks_whole(&bench.out()), "no checkpoint was made");
    let ids = calibration_ids();
    assert!(perplexity(&evaluate(&bench.out(), &ids, 64, Some(2))).is_finite());
}

#[test]
fn a_model_folder_that_is_not_there_is_named() {
    Bench::new().assert_refused(&["model"]);
}

#[test]
fn missing_weights_are_named() {
    let bench = Bench::new();
    good_model(&bench.model());
    std::fs::remove_file(bench.model().join("model.safetensors")).unwrap();
    bench.assert_refused(&["safetensors"]);
}

#[test]
fn a_shard_that_the_index_promises_but_the_folder_lacks_is_named() {
    let bench = Bench::new();
    let sharded = qlaunch_tests::random_model::specimens().into_iter().find(|s| s.shards > 1).unwrap();
    qlaunch_tests::random_model::write(&sharded, &bench.model());
    let shard = format!("model-00002-of-{:05}.safetensors", sharded.shards);
    std::fs::remove_file(bench.model().join(&shard)).unwrap();
    bench.assert_refused(&[&shard]);
}

#[test]
fn a_truncated_weight_file_is_named() {
    let bench = Bench::new();
    good_model(&bench.model());
    let path = bench.model().join("model.safetensors");
    let whole = std::fs::metadata(&path).unwrap().len();
    for length in [whole - 1, whole / 2, 100, 4, 0] {
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        bench.assert_refused(&["model.safetensors"]);
    }
}

#[test]
fn a_tensor_of_a_dtype_that_is_no_weight_is_named() {
    let bench = Bench::new();
    model_with(&bench.model(), |tensor| {
        tensor.dtype = "I16";
    });
    bench.assert_refused(&[VICTIM, "I16"]);
}

#[test]
fn a_tensor_of_a_shape_that_the_config_does_not_want_is_named() {
    let bench = Bench::new();
    model_with(&bench.model(), |tensor| {
        tensor.shape[0] /= 2;
        tensor.bytes.truncate(tensor.bytes.len() / 2);
    });
    bench.assert_refused(&[VICTIM]);
}

#[test]
fn a_tensor_that_is_missing_is_named() {
    let bench = Bench::new();
    model_with(&bench.model(), |tensor| tensor.name = "model.layers.1.self_attn.queries.weight".into());
    bench.assert_refused(&[VICTIM]);
}

#[test]
fn a_config_of_an_unknown_family_is_named() {
    let bench = Bench::new();
    model_with_config(&bench.model(), |config| {
        config["model_type"] = "gpt_neox".into();
        config["architectures"] = serde_json::json!(["GPTNeoXForCausalLM"]);
    });
    bench.assert_refused(&["config.json", "gpt_neox"]);
}

#[test]
fn a_config_that_is_not_json_is_named() {
    let bench = Bench::new();
    good_model(&bench.model());
    std::fs::write(bench.model().join("config.json"), "{\"architectures\": [").unwrap();
    bench.assert_refused(&["config.json"]);
}

#[test]
fn a_config_without_a_size_is_named() {
    let bench = Bench::new();
    model_with_config(&bench.model(), |config| {
        config.as_object_mut().unwrap().remove("hidden_size");
    });
    bench.assert_refused(&["config.json", "hidden_size"]);
}

#[test]
fn a_weight_that_is_not_a_number_is_named() {
    for bad in [half::bf16::NAN, half::bf16::INFINITY] {
        let bench = Bench::new();
        model_with(&bench.model(), |tensor| tensor.bytes[200..202].copy_from_slice(&bad.to_le_bytes()));
        bench.assert_refused(&[VICTIM]);
    }
}

#[test]
fn a_weight_of_zeros_is_no_fault_and_gets_finite_scales() {
    let bench = Bench::new();
    model_with(&bench.model(), |tensor| tensor.bytes.fill(0));
    for recipe in [RECIPE, "general/ptq/fp8_default-kv_fp8"] {
        let out = bench.work.path().join(recipe.rsplit('/').next().unwrap());
        let flags = ["--samples", "2", "--seq-len", "64"];
        Quantize::new(&bench.model(), recipe, &out).flags(&flags).run().json();
        assert!(
            perplexity(&evaluate(&out, &calibration_ids(), 64, Some(2))).is_finite(),
            "{recipe}: NaN logits"
        );
    }
}

#[test]
fn evaluating_a_truncated_model_is_refused_as_well() {
    let bench = Bench::new();
    good_model(&bench.model());
    let path = bench.model().join("model.safetensors");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5000).unwrap();
    let arguments = ["eval", bench.model().to_str().unwrap(), "--data", calibration_ids().to_str().unwrap()]
        .map(str::to_owned);
    run(arguments).assert_refused(INPUT, &["model.safetensors"]);
}
