//! Tests of the portfolio's looks: all columns, a narrow terminal, nothing acceptable.

use std::path::PathBuf;

use qlaunch_shared::Error;
use qlaunch_shared::sweep::{GateResult, Objective, Recommendation};

use super::*;

fn screen(width: Option<usize>) -> Screen {
    let mut screen = Screen::to(Box::new(Vec::new()), Box::new(Vec::new()));
    screen.folder = PathBuf::from("/home/me");
    screen.width = width;
    screen
}

fn gate(name: &str, verdict: VerdictKind) -> GateResult {
    GateResult { gate: name.to_owned(), verdict, evidence: vec!["ratio 1.02".to_owned()] }
}

fn row(name: &str, bytes: u64, delta: Option<f64>, decision: Decision) -> Row {
    Row {
        candidate: name.to_owned(),
        recipe: (name != "bf16").then(|| name.to_owned()),
        objective: Some(bytes as f64),
        bytes: Some(bytes),
        ratio: Some(bytes as f64 / 16_270_000.0),
        effective_bits: Some(9.23),
        active_bytes_per_token: Some(8_100_000),
        perplexity: Some(139.07 * (1.0 + delta.unwrap_or(0.0))),
        delta,
        kl_mean: delta.map(|delta| delta / 2.0),
        gates: vec![gate("size", VerdictKind::Pass), gate("coverage", VerdictKind::Pass)],
        decision,
        checkpoint: Some(PathBuf::from(format!("/home/me/runs/tiny-7f3a/{name}/checkpoint"))),
        ..Row::default()
    }
}

fn portfolio() -> Portfolio {
    Portfolio {
        version: 1,
        run: "tiny-7f3a".to_owned(),
        sweep: "tiny".to_owned(),
        model: PathBuf::from("/home/me/model"),
        objective: Objective::memory(),
        acceptance: "perplexity within 1% of bf16".to_owned(),
        rows: vec![
            row("bf16", 16_270_000, None, Decision::Baseline),
            row("fp8_default-kv_fp8", 10_251_264, Some(0.004), Decision::Best),
            row(
                "nvfp4_default-kv_fp8",
                7_621_832,
                Some(0.103),
                Decision::Reject { reason: "Δ over 1%".to_owned() },
            ),
        ],
        recommendation: Recommendation {
            candidate: Some("fp8_default-kv_fp8".to_owned()),
            checkpoint: Some(PathBuf::from("/home/me/runs/tiny-7f3a/fp8_default-kv_fp8/checkpoint")),
            reason: "best for memory".to_owned(),
        },
        next: vec!["measure it: `qlaunch eval /home/me/runs/x`".to_owned()],
    }
}

fn shown(portfolio: &Portfolio, width: Option<usize>) -> String {
    anstream::adapter::strip_str(&show(portfolio, &screen(width))).to_string()
}

#[test]
fn a_wide_screen_has_every_column() {
    insta::assert_snapshot!(shown(&portfolio(), None), @r"
    candidate               memory ↓    size  ratio  bits  MB/token  perplexity       Δ      KL  gates   decision           checkpoint
    bf16                  16,270,000  16.27M   1.00   9.2       8.1      139.07       –       –  2 pass  baseline           runs/tiny-7f3a/bf16/checkpoint
    fp8_default-kv_fp8    10,251,264  10.25M   0.63   9.2       8.1      139.63   +0.4%  0.0020  2 pass  best               runs/tiny-7f3a/fp8_default-kv_fp8/checkpoint
    nvfp4_default-kv_fp8   7,621,832   7.62M   0.47   9.2       8.1      153.39  +10.3%  0.0515  2 pass  reject: Δ over 1%  runs/tiny-7f3a/nvfp4_default-kv_fp8/checkpoint

    recommended: fp8_default-kv_fp8 · runs/tiny-7f3a/fp8_default-kv_fp8/checkpoint
      best for memory
    next: measure it: `qlaunch eval runs/x`
    ");
}

#[test]
fn a_narrow_terminal_keeps_the_decision_and_lists_the_checkpoints_below() {
    let text = shown(&portfolio(), Some(110));
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    insta::assert_snapshot!(text, @r"
    candidate               size  ratio  bits  MB/token  perplexity       Δ      KL  gates   decision
    bf16                  16.27M   1.00   9.2       8.1      139.07       –       –  2 pass  baseline
    fp8_default-kv_fp8    10.25M   0.63   9.2       8.1      139.63   +0.4%  0.0020  2 pass  best
    nvfp4_default-kv_fp8   7.62M   0.47   9.2       8.1      153.39  +10.3%  0.0515  2 pass  reject: Δ over 1%

    fp8_default-kv_fp8: runs/tiny-7f3a/fp8_default-kv_fp8/checkpoint
    nvfp4_default-kv_fp8: runs/tiny-7f3a/nvfp4_default-kv_fp8/checkpoint

    not shown on a terminal this narrow: memory ↓
    recommended: fp8_default-kv_fp8 · runs/tiny-7f3a/fp8_default-kv_fp8/checkpoint
      best for memory
    next: measure it: `qlaunch eval runs/x`
    ");
}

#[test]
fn failures_and_failed_gates_are_told_in_full() {
    let mut portfolio = portfolio();
    portfolio.rows[1].decision = Decision::Failed { error: Error::input("no space").at("/home/me/runs/x") };
    portfolio.rows[1].gates.clear();
    portfolio.rows[2].gates[0].verdict = VerdictKind::Fail;
    portfolio.recommendation = Recommendation {
        candidate: None,
        checkpoint: None,
        reason: "no candidate ran to its end".to_owned(),
    };
    let text = shown(&portfolio, None);
    for told in [
        "fp8_default-kv_fp8 failed: no space\n  at runs/x",
        "gate size failed for nvfp4_default-kv_fp8: ratio 1.02",
        "1 pass, 1 FAIL",
        "recommended: none: no candidate ran to its end",
    ] {
        assert!(text.contains(told), "{told}:\n{text}");
    }
}
