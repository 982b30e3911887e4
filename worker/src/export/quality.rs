//! What is told of a checkpoint beside it: gathered while it is made, written when it is whole, and again when it is measured.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use qlaunch_shared::assign::{LinearNumerics, Resolved};
use qlaunch_shared::audit::Subject;
use qlaunch_shared::audit::engines::{Offered, engines};
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{CalibrationSummary, NumericPath, Quantize};
use qlaunch_shared::quality::{
    CARD, Experts, FILE, Licence, Measured, ModuleQuality, Quality, Recorded, SOURCE_CARD, Tool, VERSION,
    card, identity,
};
use qlaunch_shared::{Error, Result};

use crate::quantize::{Errors, Remark};

/// What becomes known of a checkpoint while it is made.
#[derive(Debug, Clone, Default)]
pub struct Learnt {
    /// Errors of each linear, by name.
    pub errors: BTreeMap<String, Errors>,
    /// What algorithms chose or had to give up, by name.
    pub remarks: BTreeMap<String, Vec<Remark>>,
    /// Tokens of each expert.
    pub experts: Option<Experts>,
}

/// What a checkpoint was made from.
#[derive(Debug, Clone, Copy)]
pub struct Making<'a> {
    /// The source.
    pub model: &'a Model,
    /// What was planned.
    pub resolved: &'a Resolved,
    /// What was asked for.
    pub step: &'a Quantize,
    /// What was calibrated on.
    pub calibration: Option<&'a CalibrationSummary>,
    /// The instruction set in use.
    pub numeric_path: NumericPath,
}

/// Writes `quality.json` and the model card into a checkpoint folder; the path of the first.
///
/// # Errors
/// The source or the checkpoint cannot be read, or the disk is full.
pub fn write_quality(making: &Making<'_>, learnt: &Learnt, checkpoint: &Path) -> Result<PathBuf> {
    let subject = Subject::open(making.model, making.resolved, checkpoint)?;
    let linears = making.resolved.assignment.iter().flat_map(|assignment| &assignment.linears);
    let quality = Quality {
        version: VERSION,
        recorded: Recorded {
            recipe: making.step.recipe.clone(),
            mixed_groups: making.step.mixed_groups,
            silent_experts: making.step.silent_experts,
            assignment: making.resolved.plan.assignment.clone(),
            source: identity(making.model)?,
            licence: Licence::of(making.model),
            calibration: making.calibration.cloned(),
            tool: Tool {
                name: "qlaunch".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                numeric_path: making.numeric_path,
            },
        },
        totals: making.resolved.plan.totals.clone(),
        modules: linears.map(|linear| module_quality(linear, learnt)).collect(),
        experts: learnt.experts.clone(),
        engines: engines(&Offered::on_disk(&subject)),
        measured: None,
    };
    write(checkpoint, &quality)
}

/// Adds a measurement to what is told of a checkpoint.
///
/// # Errors
/// Nothing is told of it yet, or the disk is full.
pub fn add_measurement(checkpoint: &Path, measured: Measured) -> Result<()> {
    let path = checkpoint.join(FILE);
    let text = std::fs::read(&path).map_err(|e| Error::io("read the quality report", &path, &e))?;
    let mut quality: Quality = serde_json::from_slice(&text)
        .map_err(|e| Error::bug(format!("cannot understand the quality report: {e}")).at(&path))?;
    quality.measured = Some(measured);
    write(checkpoint, &quality).map(drop)
}

fn module_quality(linear: &LinearNumerics, learnt: &Learnt) -> ModuleQuality {
    let errors = learnt.errors.get(&linear.name);
    let output = errors.and_then(|errors| errors.output);
    let remark = |remark: &Remark| qlaunch_shared::quality::Remark {
        algorithm: remark.algorithm.clone(),
        what: remark.what.clone(),
        value: remark.value.clone(),
    };
    ModuleQuality {
        name: linear.name.clone(),
        weight: linear.weight.name().to_owned(),
        input: linear.input.map(|input| input.format.name().to_owned()),
        weight_error: errors.map(|errors| errors.weight),
        output_error: output,
        without_output_error: output.is_none().then(|| without_output_error(learnt, &linear.name).to_owned()),
        rows_measured: errors.map_or(0, |errors| errors.rows_measured),
        rows: errors.map_or(0, |errors| errors.rows),
        smoothing: linear.smoothing,
        remarks: learnt.remarks.get(&linear.name).into_iter().flatten().map(remark).collect(),
    }
}

fn without_output_error(learnt: &Learnt, name: &str) -> &'static str {
    let remarks = learnt.remarks.get(name).into_iter().flatten();
    match remarks.into_iter().any(|remark| remark.what == "no_tokens") {
        true => "no token of the calibration data came here",
        false => "no Gram matrix of its input: the recipe's algorithms need none",
    }
}

/// Both files, each seen whole or not at all.
fn write(checkpoint: &Path, quality: &Quality) -> Result<PathBuf> {
    let mut text = serde_json::to_vec_pretty(quality)
        .map_err(|e| Error::bug(format!("cannot write the quality report: {e}")))?;
    text.push(b'\n');
    let keeps_source = checkpoint.join(SOURCE_CARD).is_file();
    replace(&checkpoint.join(CARD), card(quality, keeps_source).as_bytes())?;
    let path = checkpoint.join(FILE);
    replace(&path, &text)?;
    Ok(path)
}

fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let failed = |e: std::io::Error| Error::io("write the file", path, &e);
    let mut part = path.as_os_str().to_owned();
    part.push(".partial");
    let part = PathBuf::from(part);
    let mut file = File::create(&part).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)
}
