//! Experts that never fire: what stands in for them is chosen, told one by one, and shows in the checkpoint.

use std::path::{Path, PathBuf};

use qlaunch_tests::checkpoint::read_folder;
use qlaunch_tests::places::{golden, read_json, root};
use qlaunch_tests::programs::{Call, Quantize, evaluate, finish, perplexity, qlaunch};
use qlaunch_tests::random_model::{self, specimens};
use serde_json::Value;

/// A model of three layers of six experts, the fifth of which no token ever goes through.
const SPECIMEN: &str = "qwen3-moe-fused-silent-expert";
const LAYERS: u64 = 3;
const SILENT: u64 = 4;
const GPTQ: &str = "general/ptq/nvfp4_default-kv_none-gptq";

fn model(folder: &Path) -> PathBuf {
    let specimen = specimens().into_iter().find(|specimen| specimen.name == SPECIMEN).unwrap();
    let model = folder.join("model");
    random_model::write(&specimen, &model);
    model
}

fn quantize(model: &Path, recipe: &str, out: &Path, flags: &[&str]) -> Call {
    let ids = golden(&format!("random-models/{SPECIMEN}.npy"));
    Quantize::new(model, recipe, out).calibration(&ids).flags(flags).run()
}

fn report(out: &Path) -> Value {
    read_json(&out.join("quality.json"))
}

/// What is told of one linear of the silent expert of the first layer.
fn told<'a>(report: &'a Value, projection: &str) -> &'a Value {
    let name = format!("model.layers.0.mlp.experts.{SILENT}.{projection}");
    let modules = report["modules"].as_array().unwrap();
    modules
        .iter()
        .find(|module| module["name"] == name)
        .unwrap_or_else(|| panic!("nothing is told of {name}"))
}

fn remarks(module: &Value) -> Vec<String> {
    let remarks = module["remarks"].as_array().into_iter().flatten();
    remarks.map(|remark| format!("{} {}", remark["algorithm"], remark["what"]).replace('"', "")).collect()
}

/// Layer and number of every expert without tokens, as the ledger counts them.
fn silent(report: &Value) -> Vec<(u64, u64)> {
    let layers = report["experts"]["layers"].as_array().unwrap();
    assert_eq!(layers.len() as u64, LAYERS);
    let mut silent = Vec::new();
    for layer in layers {
        let tokens: Vec<u64> = layer[1].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        assert_eq!(tokens.len(), 6);
        // Eight samples of 160 tokens, each through two experts.
        assert_eq!(tokens.iter().sum::<u64>(), 8 * 160 * 2);
        let without = (0u64..).zip(tokens).filter(|(_, tokens)| *tokens == 0);
        silent.extend(without.map(|(expert, _)| (layer[0].as_u64().unwrap(), expert)));
    }
    assert!((0..LAYERS).all(|layer| silent.contains(&(layer, SILENT))), "{silent:?}");
    silent
}

/// Every expert without tokens is listed, with what stood in for it.
fn check_ledger(report: &Value, policy: &str) {
    let listed = report["experts"]["silent"].as_array().unwrap();
    let places: Vec<(u64, u64)> =
        listed.iter().map(|one| (one["layer"].as_u64().unwrap(), one["expert"].as_u64().unwrap())).collect();
    assert_eq!(places, silent(report));
    assert!(listed.iter().all(|one| one["policy"].as_str().unwrap().starts_with(policy)), "{listed:?}");
}

#[test]
fn gptq_of_an_expert_without_tokens_follows_the_policy_and_tells_it() {
    let work = tempfile::tempdir().unwrap();
    let model = model(work.path());
    let mut made = Vec::new();
    for policy in ["peers", "weights"] {
        let out = work.path().join(policy);
        quantize(&model, GPTQ, &out, &["--silent-experts", policy]).json();
        let report = report(&out);
        check_ledger(&report, policy);
        for (projection, stays) in [("gate_proj", policy == "weights"), ("down_proj", true)] {
            let own = told(&report, projection);
            let rounded = remarks(own).contains(&"gptq no_tokens".to_owned());
            assert!(remarks(own).contains(&"calibration no_tokens".to_owned()), "{policy} {own}");
            assert_eq!(rounded, stays, "{policy} {projection}: {own}");
            assert!(own["output_error"].is_null() && own["weight_error"].as_f64().unwrap() > 0.0);
            assert!(own["without_output_error"].as_str().unwrap().contains("no token"));
        }
        // The others have an output error, and nothing to excuse.
        let silent: Vec<String> = silent(&report)
            .into_iter()
            .map(|(layer, expert)| format!("model.layers.{layer}.mlp.experts.{expert}."))
            .collect();
        for module in report["modules"].as_array().unwrap() {
            let name = module["name"].as_str().unwrap();
            if silent.iter().any(|expert| name.starts_with(expert)) {
                assert!(remarks(module).contains(&"calibration no_tokens".to_owned()), "{module}");
            } else {
                assert!(module["output_error"].as_f64().unwrap() > 0.0, "{module}");
                assert!(remarks(module).is_empty(), "{module}");
            }
        }
        let card = std::fs::read_to_string(out.join("README.md")).unwrap();
        assert!(
            card.contains(&format!("{} saw no token", silent.len()))
                && card.contains(&format!("layer 0, expert 4: {policy}")),
            "{card}"
        );
        made.push(read_folder(&out));
    }
    let same = |name: &str| made[0][name] == made[1][name];
    let own = format!("model.layers.0.mlp.experts.{SILENT}");
    assert!(!same(&format!("{own}.gate_proj.weight")), "peers changed nothing");
    assert!(same(&format!("{own}.down_proj.weight")), "nobody else's channels say anything of these");
    assert!(same(&format!("{own}.gate_proj.input_scale")), "the input's scale is the layer's");
    assert!(same("model.layers.0.mlp.experts.0.gate_proj.weight"));
    assert!(same(&format!("{own}.down_proj.input_scale")));
}

/// Searches that keep statistics per expert, each with what must be there for an expert that has none of its own.
#[test]
fn every_search_follows_every_policy_for_an_expert_without_tokens() {
    let work = tempfile::tempdir().unwrap();
    let model = model(work.path());
    let ids = golden(&format!("random-models/{SPECIMEN}.npy"));
    let plain = perplexity(&evaluate(&model, &ids, 160, Some(2)));
    for recipe in ["int8_smoothquant", "nvfp4_awq_lite", "nvfp4_awq_clip", GPTQ] {
        let name = recipe.rsplit('/').next().unwrap();
        let refused = quantize(&model, recipe, &work.path().join("refused"), &["--silent-experts", "fail"]);
        refused.assert_refused(3, &["`model.layers.0.mlp.experts.4`"]);
        for policy in ["peers", "weights"] {
            let out = work.path().join(format!("{name}-{policy}"));
            quantize(&model, recipe, &out, &["--silent-experts", policy]).json();
            let report = report(&out);
            check_ledger(&report, policy);
            for projection in ["gate_proj", "up_proj", "down_proj"] {
                let own = told(&report, projection);
                assert!(
                    remarks(own).contains(&"calibration no_tokens".to_owned()),
                    "{recipe} {policy} {own}"
                );
                assert!(own["weight_error"].as_f64().unwrap() > 0.0, "{recipe} {policy} {own}");
            }
            for (tensor, found) in read_folder(&out) {
                let is_float = ["F32", "BF16"].contains(&found.dtype.as_str());
                let finite = !is_float || found.values().iter().all(|value| value.is_finite());
                assert!(finite, "{recipe} {policy}: {tensor} is not finite");
                let is_scale = tensor.ends_with("_scale") && is_float;
                assert!(
                    !is_scale || found.values().iter().all(|value| *value > 0.0),
                    "{recipe} {policy}: {tensor}"
                );
            }
            let quantized = perplexity(&evaluate(&out, &ids, 160, Some(2)));
            eprintln!("{recipe} {policy}: perplexity {quantized:.3}, {plain:.3} before");
            assert!((quantized / plain - 1.0).abs() < 0.25, "{recipe} {policy}: {quantized}, {plain} before");
        }
    }
}

#[test]
fn fail_names_the_experts_and_a_wider_look_leaves_nothing_to_fail_for() {
    let work = tempfile::tempdir().unwrap();
    let model = model(work.path());
    let fp8 = "general/ptq/fp8_default-kv_fp8";
    let refused = quantize(&model, fp8, &work.path().join("refused"), &["--silent-experts", "fail"]);
    refused.assert_refused(
        3,
        &["experts of layer 0", "`model.layers.0.mlp.experts.4`", "moe_calib_experts_ratio"],
    );
    let wide = "quantize.algorithm={method: max, moe_calib_experts_ratio: 1.0}";
    let out = work.path().join("wide");
    quantize(&model, fp8, &out, &["--silent-experts", "fail", "--set", wide]).json();
    let report = report(&out);
    // Every token is shown to every expert, besides those that the router picks.
    check_ledger(&report, "shown 1280 tokens");
    assert!(remarks(told(&report, "gate_proj")).is_empty());
    // Experts that look at more tokens have the larger scale, or the same.
    let narrow = work.path().join("narrow");
    quantize(&model, fp8, &narrow, &[]).json();
    let [wide, narrow] = [&out, &narrow].map(|folder| read_folder(folder));
    let mut grew = 0;
    for (name, tensor) in wide.iter().filter(|(name, _)| name.ends_with("_proj.input_scale")) {
        let before = narrow[name].scalar();
        assert!(tensor.scalar() >= before || !name.contains(".experts."), "{name}");
        grew += usize::from(name.contains(".experts.0.down") && tensor.scalar() > before);
        let attention = !name.contains("self_attn") || tensor.scalar().to_bits() == before.to_bits();
        assert!(attention, "{name}: what more experts make of a token goes nowhere");
    }
    assert!(grew > 0, "nothing was seen that the model does not use");
}

#[test]
fn a_policy_that_does_not_exist_is_refused_by_name() {
    let work = tempfile::tempdir().unwrap();
    let call = quantize(Path::new("nowhere"), GPTQ, &work.path().join("out"), &["--silent-experts", "best"]);
    call.assert_code(2);
    assert!(call.stderr.contains("peers, weights, fail"), "{}", call.stderr);
}

#[test]
fn a_hessian_that_is_not_positive_definite_falls_back_and_is_told() {
    let work = tempfile::tempdir().unwrap();
    let model = model(work.path());
    let out = work.path().join("out");
    // Sixteen tokens cannot fill 128 channels, and next to nothing is added to the diagonal.
    let flags = ["--samples", "1", "--seq-len", "16", "--set", "quantize.algorithm.perc_damp=1e-12"];
    quantize(&model, GPTQ, &out, &flags).json();
    let report = report(&out);
    let query = report["modules"]
        .as_array()
        .unwrap()
        .iter()
        .find(|m| m["name"].as_str().unwrap().ends_with("0.self_attn.q_proj"));
    let remark = &query.unwrap()["remarks"][0];
    assert_eq!((&remark["algorithm"], &remark["what"]), (&"gptq".into(), &"fallback".into()), "{remark}");
    assert!(remark["value"].as_str().unwrap().contains("not positive definite"));
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(card.contains("not positive definite"), "{card}");
    let ids = golden(&format!("random-models/{SPECIMEN}.npy"));
    assert!(perplexity(&evaluate(&out, &ids, 160, Some(2))).is_finite());
}

#[test]
fn the_sweep_file_has_the_policy_too() {
    let work = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(root().join("examples/sweeps/tiny-llama.yaml")).unwrap();
    let folder = root().join("examples").display().to_string();
    let text = text
        .replace("../", &format!("{folder}/"))
        .replace("calibration:\n", "calibration:\n  silent_experts: fail\n");
    assert!(text.contains("silent_experts"), "the example's calibration is written in another way: {text}");
    let submit = |text: &str| {
        let file = work.path().join("sweep.yaml");
        std::fs::write(&file, text).unwrap();
        let mut command = qlaunch(work.path());
        command.args(["submit", "--cluster", "local", "--dry-run", "--format", "json"]).arg(&file);
        finish(command)
    };
    let planned = submit(&text).json();
    let jobs = planned["jobs"].as_array().unwrap();
    let policies: Vec<&Value> = jobs
        .iter()
        .map(|job| &job["spec"]["quantize"])
        .filter(|step| !step.is_null())
        .map(|step| &step["silent_experts"])
        .collect();
    assert!(!policies.is_empty() && policies.iter().all(|policy| **policy == "fail"), "{policies:?}");
    submit(&text.replace("evaluate:\n", "evaluate:\n  silent_experts: fail\n"))
        .assert_refused(3, &["`silent_experts` is about calibration"]);
}
