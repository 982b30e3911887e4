//! The judgement in words: the acceptance rule, and why a candidate is the one to take.

use super::bound::{Limit, baseline_figure, brief, excess, percent};
use super::file::{Rules, Sweep};
use super::portfolio::{Decision, Recommendation, Row};

/// The acceptance rule as a person says it: `perplexity within 1% of bf16`.
pub fn acceptance_words(rules: &Rules) -> String {
    let mut words = Vec::new();
    for (key, bound) in rules {
        for limit in &bound.limits {
            words.push(match limit {
                Limit::Max(max) => format!("{key} at most {}", brief(*max)),
                Limit::Min(min) => format!("{key} at least {}", brief(*min)),
                Limit::Within { share, of } => format!("{key} within {} of {of}", percent(*share)),
            });
        }
    }
    words.join(" and ")
}

/// Which candidate to take and why, or why none and what came closest.
pub fn recommendation(rows: &[Row], best: Option<usize>, sweep: &Sweep) -> Recommendation {
    match best.map(|index| &rows[index]) {
        Some(row) => Recommendation {
            candidate: Some(row.candidate.clone()),
            checkpoint: row.checkpoint.clone(),
            reason: why(row, rows, sweep),
        },
        None => Recommendation { candidate: None, checkpoint: None, reason: why_none(rows, sweep) },
    }
}

fn why(row: &Row, rows: &[Row], sweep: &Sweep) -> String {
    let acceptable = rows.iter().filter(|row| is_acceptable(row)).count();
    let tried = rows.iter().filter(|row| row.recipe.is_some()).count();
    let mut reason =
        format!("best for {} with {}", sweep.objective.name, acceptance_words(&sweep.acceptance));
    reason.push_str(&format!(": {}", figure(&sweep.objective.key, row.objective.unwrap_or(f64::NAN))));
    if let Some(ratio) = row.ratio {
        reason.push_str(&format!(", {ratio:.2}× the source's size"));
    }
    if let Some(delta) = row.delta {
        reason.push_str(&format!(", perplexity {:+.1}%", delta * 100.0));
    }
    reason.push_str(&match acceptable {
        1 => format!("; the only one of {tried} that is acceptable"),
        count => format!("; {count} of {tried} are acceptable"),
    });
    reason
}

/// A figure with its name: `10.25 MB`, `compute 0.25`.
fn figure(key: &str, value: f64) -> String {
    match key {
        "bytes" => size(value),
        "active_bytes_per_token" => format!("{} per token", size(value)),
        _ => format!("{key} {}", brief(value)),
    }
}

fn size(bytes: f64) -> String {
    match bytes {
        small if small < 1e6 => format!("{small} bytes"),
        medium if medium < 1e9 => format!("{:.2} MB", medium / 1e6),
        large => format!("{:.2} GB", large / 1e9),
    }
}

fn is_acceptable(row: &Row) -> bool {
    matches!(row.decision, Decision::Best | Decision::Accepted)
}

fn why_none(rows: &[Row], sweep: &Sweep) -> String {
    let rule = acceptance_words(&sweep.acceptance);
    match closest(rows, sweep) {
        Some((row, miss)) => {
            format!("no candidate has {rule}; {} came closest: {miss}", row.candidate)
        }
        None if rows.iter().any(|row| matches!(row.decision, Decision::Reject { .. })) => {
            format!("no candidate passed its gates and has {rule}")
        }
        None => "no candidate ran to its end".to_owned(),
    }
}

/// Of the rows whose gates hold, the one whose worst broken limit is broken least.
fn closest<'a>(rows: &'a [Row], sweep: &Sweep) -> Option<(&'a Row, String)> {
    let rejected =
        rows.iter().filter(|row| matches!(row.decision, Decision::Reject { .. }) && !row.gate_failed());
    rejected
        .filter_map(|row| worst(row, rows, sweep).map(|(share, words)| (row, share, words)))
        .min_by(|(_, a, _), (_, b, _)| a.total_cmp(b))
        .map(|(row, _, words)| (row, words))
}

/// The limit that a row breaks worst, as a share of the limit, in words.
fn worst(row: &Row, rows: &[Row], sweep: &Sweep) -> Option<(f64, String)> {
    let mut worst: Option<(f64, String)> = None;
    for (key, bound) in &sweep.acceptance {
        let value = row.figure(key).filter(|value| value.is_finite())?;
        for limit in &bound.limits {
            let baseline = match limit {
                Limit::Within { of, .. } => Some(baseline_figure(key, of, rows)?),
                _ => None,
            };
            let share = relative(excess(limit, value, baseline)?, limit);
            let words = match (limit, baseline) {
                (Limit::Within { of, .. }, Some(baseline)) => {
                    format!("{key} {:+.1}% of {of}'s", (value / baseline - 1.0) * 100.0)
                }
                _ => format!("{key} {}", brief(value)),
            };
            if worst.as_ref().is_none_or(|(most, _)| share > *most) {
                worst = Some((share, words));
            }
        }
    }
    worst
}

fn relative(excess: f64, limit: &Limit) -> f64 {
    match limit {
        Limit::Max(bound) | Limit::Min(bound) if *bound != 0.0 => excess / bound.abs(),
        _ => excess,
    }
}
