//! Coverage: every linear has exactly the numerics that were planned and that the config declares.

use std::collections::BTreeMap;

use super::gates::{Findings, Subject};
use crate::assign::ModuleTensors;
use crate::checkpoint::{Declared, PlannedTensor};

const UNQUANTIZED: &str = "unquantized";

pub(super) fn check(subject: &Subject<'_>) -> Findings {
    let mut findings = Findings::default();
    let declared = match Declared::open(&subject.files.folder, &subject.config) {
        Ok(declared) => declared,
        Err(error) => {
            findings.fault(error.to_string());
            None
        }
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for own in &subject.resolved.tensors {
        let Some(part) = own.module.map(|module| &subject.source.modules[module]) else { continue };
        if !part.is_linear() {
            continue;
        }
        let planned = own.module.and_then(|module| subject.resolved.assignment.as_ref()?.linear(module));
        let planned = planned.and_then(|linear| linear.algorithm().name()).unwrap_or(UNQUANTIZED);
        let said = declared.as_ref().and_then(|declared| declared.algorithm(&part.name)?.name());
        let said = said.unwrap_or(UNQUANTIZED);
        let found = match differing(subject, own, &part.name) {
            None => planned.to_owned(),
            Some(tensor) => tensor,
        };
        if found != planned {
            findings.fault(format!("`{}` is {found}, planned {planned}", part.name));
        } else if said != planned {
            findings.fault(format!("`{}` is {found}, declared {said}", part.name));
        }
        *counts.entry(found).or_default() += 1;
    }
    let counted: Vec<String> = counts.iter().map(|(name, count)| format!("{count} × {name}")).collect();
    findings.note(format!("linears: {}", counted.join(", ")));
    if counts.keys().all(|name| name == UNQUANTIZED) {
        findings.fault("no linear is quantized");
    }
    findings
}

/// How the stored tensors of a linear differ from the planned ones, in few words.
fn differing(subject: &Subject<'_>, own: &ModuleTensors, name: &str) -> Option<String> {
    let suffix = |tensor: &PlannedTensor| tensor.name[name.len()..].trim_start_matches('.').to_owned();
    for planned in &own.tensors {
        match subject.files.find(&planned.name) {
            None => return Some(format!("without its `{}`", suffix(planned))),
            Some((_, found)) if (found.dtype, &found.shape) != (planned.dtype, &planned.shape) => {
                return Some(format!("of `{}` {} {:?}", suffix(planned), found.dtype, found.shape));
            }
            Some(_) => {}
        }
    }
    const SCALES: [&str; 4] = ["weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale"];
    let is_planned = |scale: &str| own.tensors.iter().any(|planned| suffix(planned) == scale);
    let stray = SCALES
        .iter()
        .find(|scale| !is_planned(scale) && subject.files.find(&format!("{name}.{scale}")).is_some());
    stray.map(|scale| format!("with a stray `{scale}`"))
}
