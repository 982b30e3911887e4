//! Size: the checkpoint must be smaller than its source, and exactly as large as planned.

use super::gates::{Findings, Subject};

pub(super) fn check(subject: &Subject<'_>) -> Findings {
    let mut findings = Findings::default();
    let (bytes, source) = (subject.files.bytes(), subject.source.files.bytes());
    let ratio = bytes as f64 / source as f64;
    findings.note(format!("{bytes} of {source} bytes, ratio {ratio:.4}"));
    if bytes >= source {
        findings.fault(format!("ratio {ratio:.4} is not below 1: nothing was saved"));
    }
    let planned = subject.resolved.layout.bytes();
    if bytes != planned {
        findings.fault(format!("planned were {planned} bytes"));
    }
    findings
}
