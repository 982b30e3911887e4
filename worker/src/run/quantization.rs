//! The making of a checkpoint: calibrate, quantize, audit.

use std::path::Path;

use qlaunch_shared::assign::{Resolved, resolve};
use qlaunch_shared::audit::{GATES, audit};
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{
    CalibrationSummary, CheckpointSummary, Level, Phase, Quantize, Unit, Verdict,
};
use qlaunch_shared::{Error, Result};

use super::data;
use crate::calibrate::{Observer, Statistics};
use crate::export::{Export, export};
use crate::network::{Network, SourceWeights};
use crate::ops::Backend;
use crate::report::Reporter;
use crate::tensor::MappedCheckpoint;
use crate::tokens::Use;

/// What was made.
pub(super) struct Made {
    pub(super) checkpoint: CheckpointSummary,
    pub(super) calibration: Option<CalibrationSummary>,
    pub(super) gates: Vec<Verdict>,
}

/// Makes and audits a checkpoint.
pub(super) fn make<B: Backend>(
    backend: &B,
    model: &Model,
    step: &Quantize,
    out: &Path,
    reporter: &mut Reporter,
) -> Result<Made> {
    let resolved = resolve(model, Some(&step.recipe), step.shard_bytes)?;
    for note in &resolved.plan.notes {
        reporter.note(Level::Info, note.as_str());
    }
    let files = MappedCheckpoint::open(model.files.clone())?;
    let weights = SourceWeights::new(model, &files);
    let (statistics, calibration) = calibrate(backend, &weights, &resolved, step, reporter)?;
    let job = Export { weights: &weights, files: &files, resolved: &resolved, statistics: &statistics };
    let total = resolved.tensors.iter().map(qlaunch_shared::assign::ModuleTensors::bytes).sum();
    reporter.begin(Phase::Quantize, total, Unit::Bytes, None);
    export(&job, out, &mut |bytes| reporter.advance(bytes, None))?;
    reporter.begin(Phase::Audit, GATES.len() as u64, Unit::Steps, None);
    let gates = audit(model, &resolved, out);
    reporter.end();
    Ok(Made { checkpoint: summary(&resolved, out), calibration, gates })
}

/// Statistics, where the assignment asks for any.
fn calibrate<B: Backend>(
    backend: &B,
    weights: &SourceWeights<'_>,
    resolved: &Resolved,
    step: &Quantize,
    reporter: &mut Reporter,
) -> Result<(Statistics, Option<CalibrationSummary>)> {
    use crate::network::Weights;
    let Some(assignment) = resolved.assignment.as_ref().filter(|a| a.needs_calibration()) else {
        return Ok((Statistics::default(), None));
    };
    let Some(source) = &step.calibration else {
        return Err(Error::input(format!("the recipe `{}` needs calibration data", step.recipe.name))
            .hint("add `--calib FILE`, or `calibration:` to the sweep"));
    };
    let model = weights.model();
    let samples = data::samples(model, source, Use::Calibration, reporter)?;
    let layers = model.config.layers;
    let total = (samples.ids.len() * layers) as u64;
    reporter.begin(Phase::Calibrate, total, Unit::TokenLayers, Some(layers));
    let mut observer = Observer::new(assignment);
    let network = Network::new(backend, weights);
    let hidden = network.run(&samples, source.batch_size, &mut observer, &mut |step| {
        reporter.advance(step.tokens as u64, Some(step.layer))
    })?;
    // The output head reads the final hidden states; few recipes ask for it.
    let (head, _) = network.head()?;
    for batch in &hidden {
        crate::network::Tap::<B>::input(&mut observer, backend, &[head], batch)?;
    }
    reporter.end();
    Ok((observer.statistics, Some(data::summary(source, &samples))))
}

fn summary(resolved: &Resolved, out: &Path) -> CheckpointSummary {
    CheckpointSummary {
        path: out.to_path_buf(),
        assignment: resolved.plan.assignment.clone(),
        totals: resolved.plan.totals.clone(),
    }
}

/// The figures of a model that is evaluated as it is.
pub(super) fn as_it_is(model: &Model) -> Result<CheckpointSummary> {
    let resolved = resolve(model, None, u64::MAX)?;
    Ok(summary(&resolved, &model.folder))
}
