//! Tests of the judgement: ties, figures that are not numbers, missing baselines, failing gates.

use std::path::PathBuf;

use super::*;
use crate::assign::Totals;
use crate::protocol::{CheckpointSummary, Evaluation, Resources, Verdict};
use crate::sweep::{Baseline, Bound, Limit};

fn sweep() -> Sweep {
    Sweep {
        version: 1,
        name: "tiny".to_owned(),
        model: PathBuf::from("model"),
        objective: Objective::memory(),
        acceptance: vec![(
            "perplexity".to_owned(),
            Bound { limits: vec![Limit::Within { share: 0.01, of: "bf16".to_owned() }] },
        )],
        calibration: None,
        evaluate: None,
        baselines: vec![Baseline { name: "bf16".to_owned() }],
        candidates: Vec::new(),
        gates: Vec::new(),
        resources: Resources::default(),
        early_stop: None,
    }
}

fn outcome(name: &str, bytes: u64, perplexity: f64) -> Outcome {
    Outcome {
        version: 1,
        candidate: name.to_owned(),
        status: Status::Done,
        error: None,
        checkpoint: Some(CheckpointSummary {
            path: PathBuf::from(name),
            assignment: "00".to_owned(),
            totals: Totals {
                bytes,
                source_bytes: 1000,
                ratio: bytes as f64 / 1000.0,
                effective_bits: 8.0,
                active_bytes_per_token: bytes / 2,
                compute: 0.5,
                parameters: 500,
            },
        }),
        calibration: None,
        gates: vec![Verdict { gate: "size".to_owned(), verdict: VerdictKind::Pass, evidence: Vec::new() }],
        quality: None,
        evaluation: Some(Evaluation {
            perplexity,
            nll: perplexity.ln(),
            tokens: 511,
            windows: 1,
            kl_mean: Some(0.01),
            reference_perplexity: None,
        }),
        reproduced: Vec::new(),
        phases: Vec::new(),
        numeric_path: None,
        threads: 1,
        worker: "0".to_owned(),
        peak_memory: 1,
        cpu_seconds: 1.0,
        ranks: Vec::new(),
    }
}

fn entrant(name: &str, ran: Ran) -> Entrant {
    let recipe = (name != "bf16").then(|| format!("recipes/{name}"));
    Entrant { name: name.to_owned(), recipe, checkpoint: None, notes: Vec::new(), ran }
}

fn done(name: &str, bytes: u64, perplexity: f64) -> Entrant {
    entrant(name, Ran::Ended(Box::new(outcome(name, bytes, perplexity))))
}

fn judged(sweep: &Sweep, entrants: Vec<Entrant>) -> Portfolio {
    judge(Judgement { run: "tiny-0000", submit: "qlaunch submit s.yaml", sweep, entrants })
}

fn decisions(portfolio: &Portfolio) -> Vec<String> {
    let word = |row: &Row| match &row.decision {
        Decision::Reject { reason } => format!("reject: {reason}"),
        Decision::Failed { error } => format!("failed: {}", error.message),
        other => format!("{other:?}").to_lowercase(),
    };
    portfolio.rows.iter().map(word).collect()
}

#[test]
fn the_smallest_candidate_within_the_limit_is_best() {
    let entrants = vec![done("bf16", 1000, 100.0), done("fp8", 600, 100.4), done("fp4", 400, 110.0)];
    let portfolio = judged(&sweep(), entrants);
    assert_eq!(decisions(&portfolio), ["baseline", "best", "reject: Δ over 1%"]);
    assert_eq!(
        portfolio.recommendation.reason,
        "best for memory with perplexity within 1% of bf16: 600 bytes, 0.60× the source's size, \
         perplexity +0.4%; the only one of 2 that is acceptable"
    );
    assert_eq!(portfolio.recommendation.checkpoint, Some(PathBuf::from("fp8")));
    assert!((portfolio.rows[1].delta.unwrap() - 0.004).abs() < 1e-9);
    assert_eq!(portfolio.rows[0].delta, None, "a baseline is not compared with itself");
}

#[test]
fn of_equal_sizes_the_better_perplexity_wins_and_then_the_first() {
    let entrants =
        vec![done("bf16", 1000, 100.0), done("a", 600, 100.5), done("b", 600, 100.1), done("c", 600, 100.1)];
    let portfolio = judged(&sweep(), entrants);
    assert_eq!(decisions(&portfolio), ["baseline", "accepted", "best", "accepted"]);
}

#[test]
fn a_perplexity_that_is_not_a_number_is_rejected() {
    let entrants =
        vec![done("bf16", 1000, 100.0), done("nan", 600, f64::NAN), done("inf", 600, f64::INFINITY)];
    let portfolio = judged(&sweep(), entrants);
    assert_eq!(decisions(&portfolio)[1..], ["reject: perplexity is not finite"; 2]);
    assert_eq!(portfolio.recommendation.candidate, None);
}

#[test]
fn without_a_baseline_nothing_is_accepted_and_the_reason_says_so() {
    let failed = entrant("bf16", Ran::Failed(Error::input("cannot read")));
    let portfolio = judged(&sweep(), vec![failed, done("fp8", 600, 100.0)]);
    assert_eq!(decisions(&portfolio), ["failed: cannot read", "reject: baseline bf16 has no perplexity"]);
    assert_eq!(portfolio.rows[1].delta, None);
    assert_eq!(portfolio.recommendation.candidate, None);
    assert!(portfolio.next[0].contains("mend bf16"), "{:?}", portfolio.next);
}

#[test]
fn a_baseline_that_is_not_a_number_cannot_be_compared_with() {
    let portfolio = judged(&sweep(), vec![done("bf16", 1000, f64::NAN), done("fp8", 600, 100.0)]);
    assert_eq!(decisions(&portfolio)[1], "reject: baseline bf16 has no perplexity");
}

#[test]
fn when_none_is_acceptable_the_closest_is_named() {
    let entrants = vec![done("bf16", 1000, 100.0), done("a", 600, 103.0), done("b", 500, 101.8)];
    let portfolio = judged(&sweep(), entrants);
    assert_eq!(
        portfolio.recommendation.reason,
        "no candidate has perplexity within 1% of bf16; b came closest: perplexity +1.8% of bf16's"
    );
    assert!(portfolio.next.iter().any(|step| step.contains("acceptance:")), "{:?}", portfolio.next);
}

#[test]
fn a_failed_gate_rejects_whatever_the_perplexity() {
    let mut bad = outcome("fp8", 600, 99.0);
    bad.gates[0].verdict = VerdictKind::Fail;
    let entrants = vec![done("bf16", 1000, 100.0), entrant("fp8", Ran::Ended(Box::new(bad)))];
    let portfolio = judged(&sweep(), entrants);
    assert_eq!(decisions(&portfolio)[1], "reject: gate size");
    assert_eq!(
        portfolio.recommendation.reason,
        "no candidate passed its gates and has perplexity within 1% of bf16"
    );
}

#[test]
fn gates_of_the_sweep_are_asked_beside_the_workers() {
    let mut sweep = sweep();
    sweep.gates = vec![("ratio".to_owned(), Bound { limits: vec![Limit::Max(0.5)] })];
    let portfolio =
        judged(&sweep, vec![done("bf16", 1000, 100.0), done("a", 600, 100.0), done("b", 500, 100.0)]);
    assert_eq!(decisions(&portfolio)[1..], ["reject: gate ratio", "best"]);
    let gate = &portfolio.rows[1].gates[1];
    assert_eq!((gate.gate.as_str(), gate.evidence[0].as_str()), ("ratio", "ratio 0.6 over 0.5"));
}

#[test]
fn a_figure_that_was_not_measured_is_never_accepted() {
    let mut sweep = sweep();
    sweep.acceptance = vec![("kl_mean".to_owned(), Bound { limits: vec![Limit::Max(0.05)] })];
    let mut blind = outcome("a", 600, 100.0);
    blind.evaluation = None;
    let portfolio = judged(&sweep, vec![entrant("a", Ran::Ended(Box::new(blind)))]);
    assert_eq!(decisions(&portfolio), ["reject: kl_mean was not measured"]);
}

#[test]
fn an_objective_can_be_any_key_and_go_up() {
    let mut sweep = sweep();
    sweep.objective = Objective { name: "ratio".to_owned(), key: "ratio".to_owned(), goal: Goal::Max };
    let entrants = vec![done("bf16", 1000, 100.0), done("a", 600, 100.0), done("b", 500, 100.0)];
    assert_eq!(decisions(&judged(&sweep, entrants))[1..], ["best", "accepted"]);
}

#[test]
fn failed_and_unfinished_candidates_keep_their_place() {
    let failed = entrant("a", Ran::Failed(Error::input("disk full")));
    let portfolio = judged(&sweep(), vec![done("bf16", 1000, 100.0), failed, entrant("b", Ran::Unfinished)]);
    assert_eq!(decisions(&portfolio), ["baseline", "failed: disk full", "unfinished"]);
    assert_eq!(portfolio.recommendation.reason, "no candidate ran to its end");
    assert_eq!(portfolio.next.len(), 2, "{:?}", portfolio.next);
}

#[test]
fn a_portfolio_survives_the_way_through_json() {
    let portfolio = judged(&sweep(), vec![done("bf16", 1000, 100.0), done("fp8", 600, 100.5)]);
    let text = serde_json::to_string(&portfolio).unwrap();
    assert_eq!(serde_json::from_str::<Portfolio>(&text).unwrap(), portfolio);
}
