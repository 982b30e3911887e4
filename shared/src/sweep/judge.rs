//! The judgement: outcomes in, portfolio out. A pure function, so that the same outcomes always get the same table.

use std::cmp::Ordering;
use std::path::PathBuf;

use super::bound::{baseline_figure, evaluate_rule};
use super::file::{Goal, Objective, Sweep};
use super::hints::next_steps;
use super::portfolio::{Decision, GateResult, PORTFOLIO_VERSION, Portfolio, Row};
use super::reason::{acceptance_words, recommendation};
use crate::protocol::{Outcome, Status, VerdictKind};
use crate::{Error, ErrorKind};

/// Everything that a judgement is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement<'a> {
    /// Name of the run.
    pub run: &'a str,
    /// The command that submits the sweep again, for the next steps.
    pub submit: &'a str,
    /// The sweep.
    pub sweep: &'a Sweep,
    /// Baselines first, then candidates in the sweep's order.
    pub entrants: Vec<Entrant>,
}

/// A baseline or candidate, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entrant {
    /// Its name.
    pub name: String,
    /// Name of its recipe; none for a baseline.
    pub recipe: Option<String>,
    /// Folder of the accepted checkpoint, or of the source for a baseline.
    pub checkpoint: Option<PathBuf>,
    /// What a person should know about it.
    pub notes: Vec<String>,
    /// What came of it.
    pub ran: Ran,
}

/// What came of an entrant.
#[derive(Debug, Clone, PartialEq)]
pub enum Ran {
    /// It was not run, or not to its end.
    Unfinished,
    /// It ended with an error.
    Failed(Error),
    /// The worker wrote how it ended.
    Ended(Box<Outcome>),
}

/// Judges every entrant by the sweep's rules and recommends one.
pub fn judge(judgement: Judgement<'_>) -> Portfolio {
    let Judgement { run, submit, sweep, entrants } = judgement;
    let mut rows: Vec<Row> = entrants.into_iter().map(row).collect();
    compare(&mut rows, sweep);
    let baselines: Vec<Row> = rows.iter().filter(|row| row.recipe.is_none()).cloned().collect();
    for row in &mut rows {
        row.objective = row.figure(&sweep.objective.key);
        if row.recipe.is_none() {
            row.decision = baseline_decision(std::mem::take(&mut row.decision));
        } else if row.decision == Decision::Accepted {
            apply_gates(row, sweep, &baselines);
            row.decision = decide(row, sweep, &baselines);
        }
    }
    let best = best(&rows, &sweep.objective);
    if let Some(index) = best {
        rows[index].decision = Decision::Best;
    }
    let mut portfolio = Portfolio {
        version: PORTFOLIO_VERSION,
        run: run.to_owned(),
        sweep: sweep.name.clone(),
        model: sweep.model.clone(),
        objective: sweep.objective.clone(),
        acceptance: acceptance_words(&sweep.acceptance),
        recommendation: recommendation(&rows, best, sweep),
        rows,
        next: Vec::new(),
    };
    portfolio.next = next_steps(&portfolio, submit);
    portfolio
}

/// An entrant's figures. Whoever ran to the end is taken as accepted until a rule says otherwise.
fn row(entrant: Entrant) -> Row {
    let mut row = Row {
        candidate: entrant.name,
        recipe: entrant.recipe,
        checkpoint: entrant.checkpoint,
        notes: entrant.notes,
        ..Row::default()
    };
    match entrant.ran {
        Ran::Unfinished => {}
        Ran::Failed(error) => row.decision = Decision::Failed { error },
        Ran::Ended(outcome) => {
            row.decision = match (outcome.status, outcome.error.clone()) {
                (Status::Done, _) => Decision::Accepted,
                (Status::Interrupted, _) => Decision::Unfinished,
                // A gate ended it while it ran: that is an answer, and trying again would give the same.
                (Status::Failed, Some(error)) if error.kind == ErrorKind::Gate => {
                    Decision::Reject { reason: error.message }
                }
                (Status::Failed, Some(error)) => Decision::Failed { error },
                (Status::Failed, None) => {
                    Decision::Failed { error: Error::bug("the worker failed without saying why") }
                }
            };
            take_figures(&mut row, *outcome);
        }
    }
    row
}

fn take_figures(row: &mut Row, outcome: Outcome) {
    if let Some(checkpoint) = outcome.checkpoint {
        row.bytes = Some(checkpoint.totals.bytes);
        row.ratio = Some(checkpoint.totals.ratio);
        row.effective_bits = Some(checkpoint.totals.effective_bits);
        row.active_bytes_per_token = Some(checkpoint.totals.active_bytes_per_token);
        row.compute = Some(checkpoint.totals.compute);
        row.checkpoint = row.checkpoint.take().or(Some(checkpoint.path));
    }
    if let Some(evaluation) = outcome.evaluation {
        row.perplexity = Some(evaluation.perplexity);
        row.nll = Some(evaluation.nll);
        row.tokens = Some(evaluation.tokens);
        row.kl_mean = evaluation.kl_mean;
    }
    row.peak_memory = Some(outcome.peak_memory);
    row.cpu_seconds = Some(outcome.cpu_seconds);
    row.numeric_path = outcome.numeric_path;
    row.gates = outcome
        .gates
        .into_iter()
        .map(|gate| GateResult { gate: gate.gate, verdict: gate.verdict, evidence: gate.evidence })
        .collect();
}

/// Sets Δ: perplexity against the first baseline's. The baseline itself has none.
fn compare(rows: &mut [Row], sweep: &Sweep) {
    let Some(first) = sweep.baselines.first() else {
        return;
    };
    let Some(reference) = baseline_figure("perplexity", &first.name, rows) else {
        return;
    };
    for row in rows.iter_mut().filter(|row| row.recipe.is_some()) {
        row.delta = row.perplexity.map(|perplexity| perplexity / reference - 1.0);
    }
}

fn baseline_decision(decision: Decision) -> Decision {
    match decision {
        Decision::Accepted => Decision::Baseline,
        other => other,
    }
}

/// Adds the verdicts of the sweep's own gates to the worker's.
fn apply_gates(row: &mut Row, sweep: &Sweep, baselines: &[Row]) {
    for (key, bound) in &sweep.gates {
        let asked = evaluate_rule(key, bound, row, baselines);
        row.gates.push(GateResult {
            gate: key.clone(),
            verdict: asked.verdict,
            evidence: vec![asked.reason],
        });
    }
}

/// Gates first, then acceptance: a checkpoint that does not load needs no perplexity.
fn decide(row: &Row, sweep: &Sweep, baselines: &[Row]) -> Decision {
    let failed: Vec<&str> = row
        .gates
        .iter()
        .filter(|gate| gate.verdict == VerdictKind::Fail)
        .map(|gate| gate.gate.as_str())
        .collect();
    if !failed.is_empty() {
        return Decision::Reject { reason: format!("gate {}", failed.join(", ")) };
    }
    for (key, bound) in &sweep.acceptance {
        let asked = evaluate_rule(key, bound, row, baselines);
        if asked.verdict != VerdictKind::Pass {
            return Decision::Reject { reason: asked.reason };
        }
    }
    match row.objective {
        Some(figure) if figure.is_finite() => Decision::Accepted,
        _ => Decision::Reject { reason: format!("{} was not measured", sweep.objective.key) },
    }
}

/// The accepted row with the best objective; of equals the one nearest to the baseline, then the first.
fn best(rows: &[Row], objective: &Objective) -> Option<usize> {
    rows.iter()
        .enumerate()
        .filter(|(_, row)| row.decision == Decision::Accepted)
        .min_by(|(_, a), (_, b)| order(a, b, objective))
        .map(|(index, _)| index)
}

fn order(a: &Row, b: &Row, objective: &Objective) -> Ordering {
    let figure = |row: &Row| row.objective.unwrap_or(f64::NAN);
    let by_objective = match objective.goal {
        Goal::Min => figure(a).total_cmp(&figure(b)),
        Goal::Max => figure(b).total_cmp(&figure(a)),
    };
    let loss = |row: &Row| row.perplexity.filter(|p| p.is_finite()).unwrap_or(f64::INFINITY);
    by_objective.then_with(|| loss(a).total_cmp(&loss(b)))
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
