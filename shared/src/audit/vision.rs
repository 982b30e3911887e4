//! Vision: no tensor of a vision tower or projector has changed type or gained a scale.

use super::gates::{Findings, Subject};

/// What names of vision parts contain.
const PARTS: [&str; 5] = ["visual", "vision_tower", "vision_model", "embed_vision", "multi_modal_projector"];

pub(super) fn check(subject: &Subject<'_>) -> Findings {
    let mut findings = Findings::default();
    let is_vision = |name: &str| PARTS.iter().any(|part| name.contains(part));
    let mut untouched = 0usize;
    for before in subject.source.files.tensors().filter(|tensor| is_vision(&tensor.name)) {
        match subject.files.find(&before.name) {
            Some((_, after)) if (after.dtype, &after.shape) == (before.dtype, &before.shape) => {
                untouched += 1
            }
            Some((_, after)) => {
                findings.fault(format!("`{}` became {} {:?}", before.name, after.dtype, after.shape))
            }
            None => findings.fault(format!("`{}` is missing", before.name)),
        }
    }
    for tensor in subject.files.tensors().filter(|tensor| is_vision(&tensor.name)) {
        if subject.source.files.find(&tensor.name).is_none() {
            findings.fault(format!("`{}` is new", tensor.name));
        }
    }
    findings.note(format!("{untouched} vision tensors, untouched"));
    findings
}
