//! What AWQ's searches choose is what ModelOpt chooses, or as good by ModelOpt's own losses in f32.
//!
//! ModelOpt's choices are those of the model in bf16, where they depend on the machine: of 56 exponents for NVFP4, 49 stay the
//! same without AVX-512, and 48 with another kernel of attention. Hence the losses beside them, which are of the same search on
//! the same weights in f32 (`tests/modelopt/awq_losses.py`).

use std::collections::BTreeMap;

use serde_json::Value;

use qlaunch_tests::checkpoint::{Tensor, read_file, read_folder};
use qlaunch_tests::places::{example_model, golden, read_json};
use qlaunch_tests::programs::Quantize;

/// A choice counts as good whose loss is above that of ModelOpt's choice by at most this share.
const AS_GOOD: f64 = 0.001;
/// How far stored factors may be from ModelOpt's, where both chose the same exponent.
const FACTORS: f32 = 0.02;

/// Model, recipe and golden of each search. That of W4A8 rounds to INT4 alone, and so has INT4's losses.
const SEARCHES: [(&str, &str, &str); 5] = [
    ("tiny-llama", "int4_awq", "int4_awq"),
    ("tiny-llama", "w4a8_awq_beta", "int4_awq"),
    ("tiny-llama", "nvfp4_awq_lite", "nvfp4_awq_lite"),
    ("tiny-qwen3-moe", "int4_awq", "int4_awq"),
    ("tiny-qwen3-moe", "nvfp4_awq_lite", "nvfp4_awq_lite"),
];

/// Our choice beside ModelOpt's.
#[derive(Debug, PartialEq)]
enum Judged {
    Equal,
    /// Another one, whose loss is higher by this share.
    Other(f64),
}

/// Sums over the choices of a search.
#[derive(Debug, Default)]
struct Count {
    equal: usize,
    as_good: usize,
    all: usize,
}

#[test]
fn exponents_are_modelopts_or_lose_no_more() {
    let mut sum = Count::default();
    for (model, recipe, losses) in SEARCHES {
        let (choices, tensors) = choices(model, recipe, "alpha");
        let theirs = read_json(&golden(&format!("modelopt/{model}/{losses}/losses.json")));
        let count = count_exponents(&choices, &theirs);
        eprintln!("{model} {recipe}: {count:?}");
        sum.equal += count.equal;
        sum.as_good += count.as_good;
        sum.all += count.all;
        compare_factors((model, recipe), &tensors, &choices, &theirs);
    }
    assert!((sum.equal + sum.as_good) * 100 >= sum.all * 99 && sum.all > 0, "{sum:?}");
}

#[test]
fn clip_ratios_are_modelopts() {
    let (ours, _) = choices("tiny-llama", "nvfp4_awq_clip", "clip_ratio");
    let theirs = read_json(&golden("modelopt/tiny-llama/nvfp4_awq_clip/ratios.json"));
    let theirs = theirs.as_object().unwrap();
    let other = |(name, ratio): &(&String, &Value)| (ours[*name] - ratio.as_f64().unwrap()).abs() > 1e-3;
    let others: Vec<_> = theirs.iter().filter(other).collect();
    assert!(others.len() * 100 <= theirs.len() && !theirs.is_empty(), "{others:?}");
}

/// What a search chose by linear, as the quality report tells it, and the stored tensors.
fn choices(model: &str, recipe: &str, what: &str) -> (BTreeMap<String, f64>, BTreeMap<String, Tensor>) {
    let work = tempfile::tempdir().unwrap();
    let out = work.path().join("checkpoint");
    Quantize::new(&example_model(model), recipe, &out).run().json();
    let report = read_json(&out.join("quality.json"));
    let none = Vec::new();
    let of_module = |module: &Value| {
        let remarks = module["remarks"].as_array().unwrap_or(&none);
        let remark = remarks.iter().find(|remark| remark["what"] == what)?;
        let value = remark["value"].as_str().unwrap().parse().unwrap();
        Some((module["name"].as_str().unwrap().to_owned(), value))
    };
    (report["modules"].as_array().unwrap().iter().filter_map(of_module).collect(), read_folder(&out))
}

fn count_exponents(ours: &BTreeMap<String, f64>, theirs: &Value) -> Count {
    let mut count = Count::default();
    for (name, entry) in theirs.as_object().unwrap() {
        count.all += 1;
        match judge(ours[name], entry) {
            Judged::Equal => count.equal += 1,
            Judged::Other(worse) => {
                count.as_good += usize::from(worse <= AS_GOOD);
                eprintln!("{name}: {}, ModelOpt {}: loss {:+.3}%", ours[name], entry["alpha"], 100.0 * worse);
            }
        }
    }
    count
}

fn judge(alpha: f64, theirs: &Value) -> Judged {
    // Losses are of 0, 0.1, …, 1.
    let place = |alpha: f64| (alpha * 10.0).round() as usize;
    let (own, other) = (place(alpha), place(theirs["alpha"].as_f64().unwrap()));
    let loss = |place: usize| theirs["losses"][place].as_f64().unwrap();
    if own == other { Judged::Equal } else { Judged::Other(loss(own) / loss(other) - 1.0) }
}

/// Where exponents are equal and factors are stored, these are ModelOpt's.
fn compare_factors(
    (model, recipe): (&str, &str),
    ours: &BTreeMap<String, Tensor>,
    choices: &BTreeMap<String, f64>,
    theirs: &Value,
) {
    // ModelOpt does not export INT4 of a mixture of experts.
    if (model, recipe) == ("tiny-qwen3-moe", "int4_awq") {
        return;
    }
    let factors = read_file(&golden(&format!("modelopt/{model}/{recipe}/choices.safetensors")));
    let mut compared = 0;
    for (name, theirs_of) in &factors {
        let Some(linear) = name.strip_suffix(".pre_quant_scale") else { continue };
        let Some(own) = ours.get(name).filter(|_| judge(choices[linear], &theirs[linear]) == Judged::Equal)
        else {
            continue;
        };
        let pairs = own.values().into_iter().zip(theirs_of.values());
        let worst = pairs.map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f32::max);
        assert!(worst <= FACTORS, "{model} {recipe} {name}: a factor is off by {worst}");
        compared += 1;
    }
    eprintln!("{model} {recipe}: {compared} tensors of factors are ModelOpt's");
    assert!(compared > 0, "{model} {recipe}: no factors are stored that could be compared");
}

#[test]
fn a_worse_choice_is_seen() {
    let entry = serde_json::json!({"alpha": 0.2, "losses": [3.0, 2.0, 1.0, 1.0005, 0.9, 2.0]});
    assert_eq!(judge(0.2, &entry), Judged::Equal);
    assert_eq!(judge(0.1, &entry), Judged::Other(1.0));
    let ours = |alpha: f64| BTreeMap::from([("linear".to_owned(), alpha)]);
    let as_good = |alpha| count_exponents(&ours(alpha), &serde_json::json!({"linear": entry})).as_good;
    assert_eq!((as_good(0.3), as_good(0.4), as_good(0.0)), (1, 1, 0));
}
