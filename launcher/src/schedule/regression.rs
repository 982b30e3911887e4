//! What got worse from one portfolio to the next.

use qlaunch_shared::protocol::VerdictKind;
use qlaunch_shared::sweep::{Decision, Portfolio, Row};

/// How much worse a perplexity may be by chance: none on one numeric path, and this much between two.
const PERPLEXITY: f64 = 1.005;

/// What got worse, each as a sentence; nothing where all is as good as before.
pub fn regressions(before: &Portfolio, now: &Portfolio) -> Vec<String> {
    let mut found = Vec::new();
    for old in &before.rows {
        let name = &old.candidate;
        match now.rows.iter().find(|row| row.candidate == *name) {
            // Somebody took it out of the sweep.
            None => {}
            Some(row) => found.extend(worse(old, row).into_iter().map(|what| format!("{name}: {what}"))),
        }
    }
    if let (Some(old), None) = (&before.recommendation.candidate, &now.recommendation.candidate) {
        found.push(format!("no candidate is acceptable any more; it was {old}"));
    }
    found
}

fn worse(old: &Row, new: &Row) -> Vec<String> {
    let mut found = Vec::new();
    let good = |row: &Row| matches!(row.decision, Decision::Best | Decision::Accepted | Decision::Baseline);
    match &new.decision {
        Decision::Failed { error } if !matches!(old.decision, Decision::Failed { .. }) => {
            found.push(format!("it fails now: {}", error.message));
        }
        Decision::Unfinished if old.decision != Decision::Unfinished => {
            found.push("it did not end".to_owned())
        }
        Decision::Reject { reason } if good(old) => found.push(format!("it is rejected now: {reason}")),
        _ => {}
    }
    for gate in &new.gates {
        let before = old.gates.iter().find(|other| other.gate == gate.gate).map(|gate| gate.verdict);
        let failed = VerdictKind::Fail;
        if gate.verdict == failed && before != Some(failed) {
            found.push(format!("the gate `{}` fails now: {}", gate.gate, gate.evidence.join(", ")));
        }
    }
    if let (Some(old), Some(new)) = (old.perplexity, new.perplexity)
        && new > old * PERPLEXITY
    {
        found.push(format!("its perplexity went from {old:.2} to {new:.2}"));
    }
    if let (Some(old), Some(new)) = (old.bytes, new.bytes)
        && new > old
    {
        found.push(format!("it grew from {old} to {new} bytes"));
    }
    found
}
