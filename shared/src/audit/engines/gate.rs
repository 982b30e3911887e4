//! The gate: whether some serving engine loads the checkpoint; each answer is told.

use super::{Offered, engines};
use crate::audit::gates::{Findings, Subject};

pub(in crate::audit) fn check(subject: &Subject<'_>) -> Findings {
    let mut findings = Findings::default();
    let verdicts = engines(&Offered::on_disk(subject));
    let servers = || verdicts.iter().filter(|verdict| verdict.engine.is_server());
    for verdict in &verdicts {
        findings.note(verdict.to_string());
    }
    // Which engine is to serve it is not ours to know: that none of these does is said, and does not stop anybody.
    if !servers().any(|verdict| verdict.loads()) {
        findings.doubt("no serving engine is known to load it");
    }
    findings
}
