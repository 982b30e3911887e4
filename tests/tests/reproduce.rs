//! Pieces of a checkpoint made again: the same bytes where nobody touched it, and the piece that somebody did.

use std::fs;
use std::path::{Path, PathBuf};

use qlaunch_tests::places::{evaluation_ids, example_model, tiny_llama};
use qlaunch_tests::programs::{Call, Quantize, finish, qlaunch};

/// A checkpoint of `quantize` on a few samples, in a folder of its own.
fn made(work: &Path, model: &Path, recipe: &str, flags: &[&str]) -> PathBuf {
    let out = work.join("checkpoint");
    let quantize = Quantize::new(model, recipe, &out).flags(&["--samples", "12", "--seq-len", "40"]);
    quantize.flags(flags).run().assert_code(0);
    out
}

fn reproduce(checkpoint: &Path, flags: &[&str]) -> Call {
    let mut command = qlaunch(checkpoint.parent().unwrap());
    command.arg("reproduce").arg(checkpoint).args(["--format", "json"]).args(flags);
    finish(command)
}

/// Flips a bit in the middle of a tensor, wherever it lies.
fn tamper(checkpoint: &Path, tensor: &str) {
    for entry in fs::read_dir(checkpoint).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let header = qlaunch_shared::checkpoint::read_header(&path).unwrap();
        if let Some(found) = header.tensors.iter().find(|other| other.name == tensor) {
            let mut bytes = fs::read(&path).unwrap();
            bytes[(found.offset + found.length / 2) as usize] ^= 1;
            fs::remove_file(&path).unwrap();
            return fs::write(&path, bytes).unwrap();
        }
    }
    panic!("no `{tensor}` in {}", checkpoint.display());
}

/// Small sums, large ones behind an observed quantizer, layers behind quantized ones, and weights alone; with a store and without.
#[test]
fn what_was_made_is_made_again() {
    let moe = example_model("tiny-qwen3-moe");
    let store = tempfile::tempdir().unwrap();
    let flags = ["--store", store.path().to_str().unwrap()];
    for (model, recipe, flags) in [
        (&tiny_llama(), "general/ptq/fp8_default-kv_fp8", &flags[..]),
        (&tiny_llama(), "general/ptq/nvfp4_default-kv_none-gptq", &[]),
        (&tiny_llama(), "general/ptq/nvfp4_weight_only-kv_fp16", &["--max-shard-size", "2MB"]),
        (&moe, "configs/ptq/presets/model/nvfp4_awq_lite", &["--silent-experts", "weights"]),
    ] {
        let work = tempfile::tempdir().unwrap();
        let checkpoint = made(work.path(), model, recipe, flags);
        let told = reproduce(&checkpoint, &["--layers", "99"]).json();
        assert_eq!(told["same"], true, "{recipe}: {told:#}");
        let pieces = told["reproduced"].as_array().unwrap();
        assert_eq!(told["pieces"], pieces.len(), "{recipe}");
        assert!(pieces.iter().any(|piece| piece["tensors"].as_u64().unwrap() > 6), "{told:#}");
        assert_eq!(told["shares"][0]["caught"], 1.0);
        // A few of them need no more than what lies before.
        let told = reproduce(&checkpoint, &["--layers", "2", "--seed", "5", "--ranks", "2"]).json();
        assert_eq!((&told["same"], told["reproduced"].as_array().unwrap().len()), (&true.into(), 2));
    }
}

#[test]
fn what_was_changed_is_named() {
    let work = tempfile::tempdir().unwrap();
    let checkpoint = made(work.path(), &tiny_llama(), "general/ptq/fp8_default-kv_fp8", &[]);
    let names = ["model.layers.1.mlp.up_proj.weight_scale", "model.embed_tokens.weight"];
    for name in names {
        tamper(&checkpoint, name);
    }
    let call = reproduce(&checkpoint, &["--layers", "99"]);
    call.assert_code(10);
    let told: serde_json::Value = serde_json::from_str(&call.stdout).unwrap();
    let pieces = told["reproduced"].as_array().unwrap().iter();
    let differing: Vec<_> =
        pieces.flat_map(|piece| piece["differing"].as_array().unwrap()).map(|name| name.as_str()).collect();
    assert_eq!(differing, [Some(names[1]), Some(names[0])], "{told:#}");
}

/// A checkpoint that was made without a store has a digest of each tensor, whichever rank wrote it.
#[test]
fn every_tensor_is_held_against_its_digest() {
    let verify = |checkpoint: &Path| {
        let mut command = qlaunch(checkpoint.parent().unwrap());
        command.arg("verify").arg(checkpoint).args(["--format", "json"]);
        finish(command)
    };
    let work = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [alone, two] = [("1", &work[0]), ("2", &work[1])].map(|(ranks, work)| {
        let flags = ["--ranks", ranks, "--max-shard-size", "2MB"];
        made(work.path(), &tiny_llama(), "general/ptq/nvfp4_default-kv_fp8", &flags)
    });
    let build = |checkpoint: &Path| fs::read_to_string(checkpoint.join("build.json")).unwrap();
    assert_eq!(build(&alone), build(&two));
    let told = verify(&two).json();
    assert!(told["tensors"].as_u64().unwrap() > 200 && told["damages"] == serde_json::json!([]), "{told:#}");
    let name = "model.layers.3.mlp.up_proj.weight";
    tamper(&two, name);
    let call = verify(&two);
    call.assert_code(10);
    let told: serde_json::Value = serde_json::from_str(&call.stdout).unwrap();
    assert_eq!(told["damages"].as_array().unwrap().len(), 1, "{told:#}");
    assert_eq!(told["damages"][0]["piece"], name);
    let without = made(
        &work[0].path().join("other"),
        &tiny_llama(),
        "general/ptq/fp8_default-kv_fp8",
        &["--no-digests"],
    );
    verify(&without).assert_refused(3, &["does not say", "--no-digests"]);
}

#[test]
fn what_cannot_be_made_again_says_what_is_missing() {
    let work = tempfile::tempdir().unwrap();
    let checkpoint = made(work.path(), &tiny_llama(), "general/ptq/fp8_default-kv_fp8", &[]);
    let other = example_model("tiny-qwen3-moe");
    reproduce(&checkpoint, &["--model", other.to_str().unwrap()])
        .assert_refused(3, &["not the model", "--model DIR"]);
    let data = evaluation_ids();
    reproduce(&checkpoint, &["--calib", data.to_str().unwrap()])
        .assert_refused(3, &["calibrated on other tokens", "--calib FILE"]);
    fs::remove_file(checkpoint.join("quality.json")).unwrap();
    reproduce(&checkpoint, &[]).assert_refused(3, &["does not say how it was made"]);
}
