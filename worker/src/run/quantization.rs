//! The making of a checkpoint: calibrate, quantize, audit.

use std::path::{Path, PathBuf};

use qlaunch_shared::assign::{Assignment, Grouping, ModuleTensors, Piece, Resolved, resolve, resolve_with};
use qlaunch_shared::audit::{GATES, audit};
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{
    CalibrationSummary, CheckpointSummary, Level, Phase, Quantize, Unit, Verdict,
};
use qlaunch_shared::store::{Ground, build_keys};
use qlaunch_shared::{Error, ErrorKind, Result};

use super::building::Building;
use super::data;
use super::digests::digests;
use super::forward::{Forward, forward};
use super::kept::Kept;
use super::output::Output;
use crate::comm::Communicator;
use crate::export::{Making, Production, Sources, write_quality};
use crate::network::{Batches, SourceWeights, Stage, Weights};
use crate::ops::Backend;
use crate::report::Reporter;
use crate::store::Store;
use crate::tensor::MappedCheckpoint;
use crate::tokens::{Samples, Use};

/// What was made.
pub(super) struct Made {
    pub(super) checkpoint: CheckpointSummary,
    pub(super) calibration: Option<CalibrationSummary>,
    pub(super) gates: Vec<Verdict>,
    pub(super) quality: PathBuf,
}

/// What a checkpoint is made with.
#[derive(Clone, Copy)]
pub(super) struct Means<'a> {
    /// All ranks.
    pub(super) comm: &'a dyn Communicator,
    /// Where pieces are kept and found, if anywhere.
    pub(super) store: Option<&'a Store>,
}

/// Makes and audits a checkpoint, or this rank's share of it. What the first rank has to say of the whole is `None` on the
/// others.
pub(super) fn make<B: Backend>(
    backend: &B,
    (model, means): (&Model, Means<'_>),
    step: &Quantize,
    out: &Path,
    reporter: &mut Reporter,
) -> Result<Option<Made>> {
    let grouping = if means.store.is_some() { Grouping::ByPiece } else { Grouping::BySize };
    let resolved = resolve_with(model, Some(&step.recipe), step.aims(grouping))?;
    for note in &resolved.plan.notes {
        reporter.note(note.level, note.text.as_str());
    }
    let assignment = resolved.assignment.as_ref();
    let assignment = assignment.ok_or_else(|| Error::bug("there is nothing to quantize"))?;
    check_coverage(step, &resolved, model)?;
    let files = MappedCheckpoint::open(model.files.clone())?;
    let weights = SourceWeights::new(model, &files);
    let stage = Stage::of(means.comm, model, false)?;
    let sources = Sources { weights: &weights, files: &files, resolved: &resolved };
    let mut production = Production::new(sources, backend.coder())?;
    let numeric_path = backend.numeric_path();
    let data = CalibrationData::read((model, assignment), step, means, reporter)?;
    let output = match means.store {
        None => Output::folder(&production, out, &stage, !step.no_digests)?,
        Some(store) => {
            let tokens = data.as_ref().map(|data| data::identity(&data.samples));
            let digests = digests(store, (model, &files), means.comm)?;
            if let (Some(source), Some(data), 0) = (&step.calibration, &data, means.comm.rank()) {
                data::note_tokens(store, (source, model), (&data.samples, numeric_path))?;
            }
            let ground = Ground {
                model,
                digests: &digests,
                tokens: tokens.as_deref(),
                numeric_path,
                silent_experts: step.silent_experts,
            };
            let keys = build_keys(&resolved, &ground)?;
            let mut say = |text: String| reporter.note(Level::Warning, text);
            Output::Store(Kept::open(store, (model, &resolved), keys, &stage, &mut say)?)
        }
    };
    let building = Building::new(assignment, model, (production, output), step.silent_experts, numeric_path);
    let output;
    (production, output) = build(backend, building, (&weights, &stage, data.as_ref()), &resolved, reporter)?;
    let calibration = data.as_ref().map(|data| data.summary.clone());
    if !output.publish(&mut production, out, means.comm)? {
        reporter.end();
        return Ok(None);
    }
    reporter.begin(Phase::Audit, GATES.len() as u64, Unit::Steps, None);
    let gates = audit(model, &resolved, out);
    let making = Making { model, resolved: &resolved, step, calibration: calibration.as_ref(), numeric_path };
    let quality = write_quality(&making, &production.learnt, out)?;
    reporter.end();
    Ok(Some(Made { checkpoint: summary(&resolved, out), calibration, gates, quality }))
}

/// What the recipe reaches here must be what was planned, before anything is paid for: a folder may have changed since, and the
/// candidate would be another one than the person has seen.
///
/// # Errors
/// It is something else.
pub(super) fn check_coverage(step: &Quantize, resolved: &Resolved, model: &Model) -> Result<()> {
    let plan = &resolved.plan;
    let Some(planned) = step.assignment.as_ref().filter(|planned| **planned != plan.assignment) else {
        return Ok(());
    };
    let quantized: usize = plan.coverage.formats.iter().map(|(_, count)| count).sum();
    let message = format!(
        "ended early: the recipe reaches {quantized} of {} linears here, and not as planned (assignment {}, planned {})",
        plan.coverage.linears,
        plan.assignment.get(..12).unwrap_or_default(),
        planned.get(..12).unwrap_or_default(),
    );
    Err(Error::new(ErrorKind::Gate, message).at(&model.folder).key("coverage").hint(
        "the model has changed since the plan, or launcher and worker are of two versions: submit again",
    ))
}

/// What a recipe is calibrated on.
pub(super) struct CalibrationData {
    pub(super) samples: Samples,
    pub(super) summary: CalibrationSummary,
    batch_size: usize,
}

impl CalibrationData {
    /// Reads it, where the recipe needs any; all ranks read the same.
    pub(super) fn read(
        (model, assignment): (&Model, &Assignment),
        step: &Quantize,
        means: Means<'_>,
        reporter: &mut Reporter,
    ) -> Result<Option<Self>> {
        if !assignment.needs_calibration() {
            return Ok(None);
        }
        let source = step.calibration.as_ref().ok_or_else(|| {
            Error::input(format!("the recipe `{}` needs calibration data", step.recipe.name))
                .hint("add `--calib FILE`, or `calibration:` to the sweep")
        })?;
        let samples = data::samples((model, means.store), source, Use::Calibration, reporter)?;
        let summary = data::summary(source, &samples);
        data::agree(means.comm, &summary)?;
        Ok(Some(Self { samples, summary, batch_size: source.batch_size }))
    }
}

/// Makes all pieces of this rank that are missing: layers while data streams through the model, and the rest.
pub(super) fn build<'a, B: Backend>(
    backend: &B,
    mut building: Building<'a>,
    (weights, stage, data): (&SourceWeights<'_>, &Stage<'_>, Option<&'a CalibrationData>),
    resolved: &Resolved,
    reporter: &mut Reporter,
) -> Result<(Production<'a>, Output<'a>)> {
    if let Some(data) = data {
        let pass = Forward {
            weights,
            stage,
            batches: Batches::of(stage, &data.samples, data.batch_size),
            streaming: building.streaming(),
            experts_ratio: building.experts_ratio(),
        };
        forward(backend, pass, &mut building, reporter)?;
    }
    let model = weights.model();
    let rest: Vec<Piece> =
        own_pieces(stage).into_iter().filter(|&piece| building.is_missing(piece)).collect();
    let is_rest = |own: &&ModuleTensors| rest.contains(&Piece::of(own, model));
    let total = resolved.tensors.iter().filter(is_rest).map(ModuleTensors::bytes).sum();
    reporter.begin(Phase::Quantize, total, Unit::Bytes, None);
    if building.keeps_pieces() {
        reporter.keep_layers();
        building.complete_all(&rest, reporter, &Reporter::layer_kept)?;
    } else {
        building.complete_all(&rest, reporter, &|| Ok(()))?;
    }
    Ok(building.into_parts())
}

/// The pieces that a rank makes.
pub(super) fn own_pieces(stage: &Stage<'_>) -> Vec<Piece> {
    let first = stage.is_first().then_some(Piece::First);
    let last = stage.is_last().then_some(Piece::Last);
    first.into_iter().chain(stage.layers.clone().map(Piece::Layer)).chain(last).collect()
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
