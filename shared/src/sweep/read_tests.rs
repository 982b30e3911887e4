//! Tests of the sweep file's reader: what it takes, and what a person reads when it does not.

use std::path::PathBuf;

use super::*;
use crate::sweep::{Goal, Limit};

const FULL: &str = "\
version: 1
name: tiny
model: ../models/tiny
objective: memory
acceptance:
  perplexity: {within: 1%, of: bf16}
  kl_mean: {max: 0.05}
calibration: {data: ../data/calib.npy, batch_size: 4, seed: 7}
evaluate: {data: ../data/eval.npy, samples: 32, seq_len: 512}
baselines: [bf16]
candidates:
  - general/ptq/fp8_default-kv_fp8
  - {name: mine, recipe: my/recipe.yaml, overrides: [a.b=1], kv_cache: fp8, calibration: {data: other.txt}}
gates:
  ratio: {max: 70%}
resources: {threads: 2, numeric_path: avx2}
";

fn read(text: &str) -> Result<Sweep> {
    read_sweep(text, Path::new("sweeps/tiny.yaml"))
}

fn refusal(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn a_full_sweep_is_read_with_paths_beside_the_file() {
    let sweep = read(FULL).unwrap();
    assert_eq!(sweep.model, PathBuf::from("models/tiny"));
    assert_eq!(sweep.evaluate.unwrap().samples, Some(32));
    assert_eq!(sweep.candidates[0].name, "fp8_default-kv_fp8");
    assert_eq!(sweep.candidates[1].calibration.as_ref().unwrap().data, PathBuf::from("sweeps/other.txt"));
    assert_eq!(sweep.candidates[1].overrides, ["a.b=1"]);
    assert_eq!(sweep.candidates[1].kv_cache.as_deref(), Some("fp8"));
    assert_eq!(sweep.acceptance[0].1.limits, [Limit::Within { share: 0.01, of: "bf16".to_owned() }]);
    assert_eq!(sweep.gates[0].1.limits, [Limit::Max(0.7)]);
    assert_eq!(sweep.resources.threads, Some(2));
}

#[test]
fn what_stands_in_for_silent_experts_is_a_matter_of_calibration() {
    use crate::protocol::SilentExperts;
    assert_eq!(read(FULL).unwrap().calibration.unwrap().silent_experts, None);
    let text = FULL.replace("batch_size: 4,", "batch_size: 4, silent_experts: weights,");
    assert_eq!(read(&text).unwrap().calibration.unwrap().silent_experts, Some(SilentExperts::Weights));
    let unknown = refusal(&FULL.replace("batch_size: 4,", "batch_size: 4, silent_experts: best,"));
    assert!(unknown.contains("best") && unknown.contains("peers"), "{unknown}");
    let elsewhere = refusal(&FULL.replace("samples: 32,", "samples: 32, silent_experts: peers,"));
    assert!(elsewhere.contains("is about calibration"), "{elsewhere}");
}

#[test]
fn a_path_above_the_working_folder_keeps_its_dots() {
    let text = FULL.replace("../models/tiny", "../../../tiny");
    assert_eq!(read(&text).unwrap().model, PathBuf::from("../../tiny"));
    let text = FULL.replace("../models/tiny", "/models/tiny");
    assert_eq!(read(&text).unwrap().model, PathBuf::from("/models/tiny"));
}

#[test]
fn a_sweep_without_objective_and_acceptance_is_refused_with_the_lines_to_add() {
    let text: String = FULL
        .lines()
        .filter(|line| {
            !["objective", "acceptance", "  perplexity", "  kl_mean"].iter().any(|key| line.starts_with(key))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    insta::assert_snapshot!(refusal(&text), @r"
    the sweep has no objective and no acceptance rule
      at sweeps/tiny.yaml

    hint: add to sweeps/tiny.yaml:

    objective: memory            # or `compute`, or {key: active_bytes_per_token, goal: min}
    acceptance:
      perplexity: {within: 1%, of: bf16}
    ");
}

#[test]
fn an_unknown_key_is_refused_at_its_place_with_the_word_that_was_meant() {
    insta::assert_snapshot!(refusal(&FULL.replace("objective: memory", "objectiv: memory")), @r"
    unknown key `objectiv`
      at sweeps/tiny.yaml:4:1 (`objectiv`)

    hint: did you mean `objective`?
    ");
    insta::assert_snapshot!(refusal(&FULL.replace("kl_mean: {max", "kl_maen: {max")), @r"
    there is no figure `kl_maen`
      at sweeps/tiny.yaml:7:3 (`acceptance.kl_maen`)

    hint: did you mean `kl_mean`?
    ");
    let text = FULL.replace("batch_size", "batchsize");
    assert!(refusal(&text).contains("sweeps/tiny.yaml:8:40"), "{}", refusal(&text));
}

#[test]
fn a_rule_about_an_absent_baseline_is_refused() {
    insta::assert_snapshot!(refusal(&FULL.replace("baselines: [bf16]", "baselines: []")), @r"
    there is no baseline `bf16`
      at sweeps/tiny.yaml:6:15 (`acceptance.perplexity`)

    hint: add `baselines: [bf16]`
    ");
}

#[test]
fn a_rule_about_perplexity_needs_an_evaluation() {
    let text = FULL.replace("evaluate: {data: ../data/eval.npy, samples: 32, seq_len: 512}\n", "");
    assert!(
        refusal(&text).starts_with("perplexity is not measured without `evaluate:`"),
        "{}",
        refusal(&text)
    );
}

#[test]
fn a_share_without_its_percent_sign_is_refused() {
    insta::assert_snapshot!(refusal(&FULL.replace("within: 1%", "within: 1")), @r"
    `within: 1` is not a share
      at sweeps/tiny.yaml:6:24 (`acceptance.perplexity.within`)

    hint: write `within: 1%`
    ");
}

#[test]
fn two_candidates_of_one_name_are_refused() {
    let text = FULL.replace("name: mine", "name: fp8_default-kv_fp8");
    assert!(refusal(&text).starts_with("`fp8_default-kv_fp8` names two things\n  at sweeps/tiny.yaml:13:5"));
    let text = FULL.replace("name: mine", "name: bf16");
    assert!(refusal(&text).starts_with("`bf16` names two things"));
}

#[test]
fn names_that_are_no_folder_names_are_refused() {
    for name in ["../x", "a b", ".hidden", "", "portfolio.json", "a/b"] {
        let text = FULL.replace("name: mine", &format!("name: '{name}'"));
        assert!(refusal(&text).contains("cannot name a folder"), "{name}");
    }
}

#[test]
fn an_objective_can_be_any_figure() {
    let text = FULL.replace("objective: memory", "objective: {key: active_bytes_per_token, goal: min}");
    let objective = read(&text).unwrap().objective;
    assert_eq!((objective.key.as_str(), objective.goal), ("active_bytes_per_token", Goal::Min));
    let text = FULL.replace("objective: memory", "objective: ratio");
    assert!(refusal(&text).contains("{key: ratio, goal: min}"));
    let text = FULL.replace("objective: memory", "objective: {key: speed, goal: min}");
    assert!(refusal(&text).starts_with("there is no figure `speed`"));
}

#[test]
fn empty_lists_zero_counts_and_other_versions_are_refused() {
    for (from, to, reason) in [
        ("samples: 32", "samples: 0", "`samples` must be at least 1"),
        ("version: 1", "version: 2", "version 2 of the sweep file is not known"),
        ("{max: 0.05}", "{}", "this rule has no limit"),
        ("{max: 0.05}", "{max: lots}", "`max` is neither a number nor a percentage"),
        ("{within: 1%, of: bf16}", "{within: 1%}", "`within` needs the baseline"),
        ("threads: 2", "thread: 2", "unknown key `thread`"),
    ] {
        let text = refusal(&FULL.replace(from, to));
        assert!(text.starts_with(reason), "{text}");
    }
    let head = FULL.split("candidates:").next().unwrap();
    assert!(refusal(&format!("{head}candidates: []\n")).starts_with("the sweep has no candidates"));
}
