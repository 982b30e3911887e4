//! Coverage: every linear has exactly the numerics that were planned and that the config declares.

use std::collections::BTreeMap;

use serde_json::Value;

use super::gates::{Findings, Subject};
use crate::checkpoint::DType;
use crate::model::Module;
use crate::recipe::fnmatch;

pub(super) fn check(subject: &Subject<'_>) -> Findings {
    let mut findings = Findings::default();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let linears = subject.source.modules.iter().enumerate().filter(|(_, module)| module.is_linear());
    for (module, part) in linears.filter(|(_, part)| !subject.source.is_tied_head(part)) {
        let planned = subject.resolved.assignment.as_ref().and_then(|a| a.linear(module));
        let planned = planned.and_then(|linear| linear.algorithm().name()).unwrap_or("unquantized");
        let found = observed(subject, part);
        let declared = declared(subject, &part.name);
        if found != planned {
            findings.fault(format!("`{}` is {found}, planned {planned}", part.name));
        } else if declared != planned {
            findings.fault(format!("`{}` is {found}, declared {declared}", part.name));
        }
        *counts.entry(found).or_default() += 1;
    }
    let counted: Vec<String> = counts.iter().map(|(name, count)| format!("{count} × {name}")).collect();
    findings.note(format!("linears: {}", counted.join(", ")));
    if counts.keys().all(|name| name == "unquantized") {
        findings.fault("no linear is quantized");
    }
    findings
}

/// What the stored tensors of a linear are, by their dtypes and scales.
fn observed(subject: &Subject<'_>, part: &Module) -> String {
    let tensor =
        |suffix: &str| subject.files.find(&format!("{}.{suffix}", part.name)).map(|(_, tensor)| tensor.dtype);
    let scales = (tensor("weight_scale"), tensor("weight_scale_2"), tensor("input_scale"));
    match (tensor("weight"), scales) {
        (None, _) => "missing".to_owned(),
        (Some(DType::F8E4M3), (Some(DType::F32), None, Some(DType::F32))) => "FP8".to_owned(),
        (Some(DType::U8), (Some(DType::F8E4M3), Some(DType::F32), Some(DType::F32))) => "NVFP4".to_owned(),
        (Some(DType::U8), (Some(DType::F8E4M3), Some(DType::F32), None)) => "W4A16_NVFP4".to_owned(),
        (Some(dtype), (None, None, None)) if dtype == subject.source.config.dtype => "unquantized".to_owned(),
        (Some(dtype), _) => format!("{dtype} with the wrong scales"),
    }
}

/// What `quantization_config` says of a linear.
fn declared(subject: &Subject<'_>, name: &str) -> String {
    let Some(config) = subject.config.get("quantization_config") else { return "unquantized".to_owned() };
    if let Some(layers) = config.get("quantized_layers").and_then(Value::as_object) {
        let entry = layers.get(name).and_then(|entry| entry["quant_algo"].as_str());
        return entry.unwrap_or("unquantized").to_owned();
    }
    let ignored = config["ignore"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if ignored.into_iter().any(|pattern| fnmatch(name, pattern)) {
        return "unquantized".to_owned();
    }
    config["quant_algo"].as_str().unwrap_or("nothing").to_owned()
}
