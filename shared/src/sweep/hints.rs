//! What to do after a judgement, as commands and lines to write.

use super::portfolio::{Decision, Portfolio, Row};
use crate::ErrorKind;

/// The next steps, the most useful first; `submit` is the command that submits the sweep again.
pub fn next_steps(portfolio: &Portfolio, submit: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let names = |matches: fn(&Row) -> bool| -> Vec<&str> {
        portfolio.rows.iter().filter(|row| matches(row)).map(|row| row.candidate.as_str()).collect()
    };
    let failed = names(is_cause);
    if !failed.is_empty() {
        steps.push(format!("mend {} and run only what is missing: `{submit}`", failed.join(", ")));
    }
    let unfinished = names(|row| row.decision == Decision::Unfinished);
    if !unfinished.is_empty() {
        steps.push(format!("run what is left ({}): `{submit}`", unfinished.join(", ")));
    }
    let gated = names(Row::gate_failed);
    if !gated.is_empty() {
        let run = &portfolio.run;
        steps.push(format!(
            "see why gates failed for {}: `qlaunch portfolio {run} --format json`",
            gated.join(", ")
        ));
    }
    match (&portfolio.recommendation.candidate, &portfolio.recommendation.checkpoint) {
        // `CLUSTER:/path` is no place that a command here can read.
        (Some(candidate), Some(checkpoint)) if checkpoint.display().to_string().contains(":/") => {
            let run = &portfolio.run;
            steps.push(format!("bring it home: `qlaunch fetch {run}/{candidate} --to DIR`"));
        }
        (Some(_), Some(checkpoint)) => steps.push(format!(
            "measure it on text of your own: `qlaunch eval {} --data FILE --reference {}`",
            checkpoint.display(),
            portfolio.model.display()
        )),
        (None, _) if failed.is_empty() && unfinished.is_empty() => {
            steps.push(
                "add candidates that keep more layers as they are (`qlaunch recipe list`), \
                 or raise the limit under `acceptance:`"
                    .to_owned(),
            );
        }
        _ => {}
    }
    steps
}

/// Whether a row failed by itself, rather than because its baseline did.
fn is_cause(row: &Row) -> bool {
    matches!(&row.decision, Decision::Failed { error } if error.kind != ErrorKind::Candidates)
}
