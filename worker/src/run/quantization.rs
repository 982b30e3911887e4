//! The making of a checkpoint: calibrate, quantize, audit.

use std::path::{Path, PathBuf};

use qlaunch_shared::assign::{Aims, ModuleTensors, Resolved, resolve, resolve_with};
use qlaunch_shared::audit::{GATES, audit};
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{CalibrationSummary, CheckpointSummary, Phase, Quantize, Unit, Verdict};
use qlaunch_shared::quality::{Experts, SilentExpert};
use qlaunch_shared::{Error, Result};

use super::building::Building;
use super::data;
use crate::calibrate::Statistics;
use crate::comm::{Communicator, Tag};
use crate::export::{Making, Production, Share, Sources, write_quality};
use crate::network::{Network, SourceWeights, Stage, Streaming, Weights};
use crate::ops::Backend;
use crate::report::Reporter;
use crate::tensor::MappedCheckpoint;
use crate::tokens::Use;

/// What was made.
pub(super) struct Made {
    pub(super) checkpoint: CheckpointSummary,
    pub(super) calibration: Option<CalibrationSummary>,
    pub(super) gates: Vec<Verdict>,
    pub(super) quality: PathBuf,
}

/// Makes and audits a checkpoint, or this rank's share of it. What the first rank has to say of the whole is `None` on the
/// others.
pub(super) fn make<B: Backend>(
    backend: &B,
    (model, comm): (&Model, &dyn Communicator),
    step: &Quantize,
    out: &Path,
    reporter: &mut Reporter,
) -> Result<Option<Made>> {
    let aims = Aims { shard_bytes: step.shard_bytes, mixed_groups: step.mixed_groups };
    let resolved = resolve_with(model, Some(&step.recipe), aims)?;
    for note in &resolved.plan.notes {
        reporter.note(note.level, note.text.as_str());
    }
    let files = MappedCheckpoint::open(model.files.clone())?;
    let weights = SourceWeights::new(model, &files);
    let stage = Stage::of(comm, model, false)?;
    let share = Share { first: stage.is_first(), last: stage.is_last() };
    let sources = Sources { weights: &weights, files: &files, resolved: &resolved, share };
    let production = begin(sources, out, &stage)?;
    let calibrated = resolved.assignment.as_ref().filter(|assignment| assignment.needs_calibration());
    let (mut production, statistics, calibration) = match calibrated {
        Some(assignment) => {
            let building = Building::new(assignment, model, production, step.silent_experts);
            let (building, summary) = stream(backend, (&weights, &stage), building, step, reporter)?;
            let (production, statistics) = building.into_parts();
            (production, statistics, Some(summary))
        }
        None => (production, Statistics::default(), None),
    };
    let layers = if calibrated.is_some() { 0..0 } else { stage.layers.clone() };
    let rest: Vec<Option<usize>> = layers.map(Some).chain([None]).collect();
    let is_rest = |own: &&ModuleTensors| {
        let layer = own.module.and_then(|module| model.modules[module].layer);
        rest.contains(&layer) && (layer.is_some() || share.has(own, model))
    };
    let total = resolved.tensors.iter().filter(is_rest).map(ModuleTensors::bytes).sum();
    reporter.begin(Phase::Quantize, total, Unit::Bytes, None);
    for layer in &rest {
        production.finish(*layer, &statistics, &mut |bytes| reporter.advance(bytes, None))?;
    }
    production.learnt.experts = experts(&statistics);
    if !gather(&mut production, comm)? {
        reporter.end();
        return Ok(None);
    }
    let learnt = std::mem::take(&mut production.learnt);
    production.publish()?;
    reporter.begin(Phase::Audit, GATES.len() as u64, Unit::Steps, None);
    let gates = audit(model, &resolved, out);
    let making = Making {
        model,
        resolved: &resolved,
        recipe: &step.recipe,
        calibration: calibration.as_ref(),
        numeric_path: backend.numeric_path().parse()?,
    };
    let quality = write_quality(&making, &learnt, out)?;
    reporter.end();
    Ok(Some(Made { checkpoint: summary(&resolved, out), calibration, gates, quality }))
}

/// Begins a checkpoint on the first rank, which the others join.
fn begin<'a>(sources: Sources<'a>, out: &Path, stage: &Stage<'_>) -> Result<Production<'a>> {
    if stage.is_first() {
        let production = Production::begin(sources, out)?;
        stage.comm.barrier()?;
        return Ok(production);
    }
    stage.comm.barrier()?;
    Production::join(sources, out).map_err(|e| match e.hint {
        Some(_) => e,
        None => e.hint("all ranks need the output folder on a disk that they share"),
    })
}

/// Tells the first rank what this one wrote and learnt; whether this is the first.
fn gather(production: &mut Production<'_>, comm: &dyn Communicator) -> Result<bool> {
    if comm.rank() > 0 {
        comm.send(0, Tag::REPORT, production.report()?)?;
        return Ok(false);
    }
    for rank in 1..comm.size() {
        let report = comm.recv(rank, Tag::REPORT)?;
        production.take_in(&report)?;
    }
    Ok(true)
}

/// Refuses to go on where ranks do not calibrate on the same tokens.
fn agree(comm: &dyn Communicator, summary: &CalibrationSummary) -> Result<()> {
    let digests = comm.all_gather(summary.tokens_sha256.clone().into_bytes())?;
    match digests.iter().position(|other| *other != digests[0]) {
        None => Ok(()),
        Some(rank) => Err(Error::input(format!("rank {rank} reads other calibration tokens than rank 0"))
            .at(&summary.data)
            .hint("all ranks need the same data and tokenizer files under the same paths")),
    }
}

/// Sends the calibration data through the model; each layer is finished as soon as all of it went through.
fn stream<'a, B: Backend>(
    backend: &B,
    (weights, stage): (&SourceWeights<'_>, &Stage<'_>),
    mut building: Building<'a>,
    step: &Quantize,
    reporter: &mut Reporter,
) -> Result<(Building<'a>, CalibrationSummary)> {
    let Some(source) = &step.calibration else {
        return Err(Error::input(format!("the recipe `{}` needs calibration data", step.recipe.name))
            .hint("add `--calib FILE`, or `calibration:` to the sweep"));
    };
    let model = weights.model();
    let samples = data::samples(model, source, Use::Calibration, reporter)?;
    let summary = data::summary(source, &samples);
    agree(stage.comm, &summary)?;
    building.set_length(samples.length);
    let layers = stage.layers.len();
    let streaming = building.streaming();
    let is_ahead = streaming == Streaming::AheadThenLayerByLayer && !stage.is_last();
    let total = (samples.ids.len() * layers * (building.passes() + usize::from(is_ahead))) as u64;
    reporter.begin(Phase::Calibrate, total, Unit::TokenLayers, Some(layers));
    let mut network = Network::new(backend, weights).on(stage.clone(), streaming);
    if let Some(ratio) = building.experts_ratio() {
        network = network.widen_experts(ratio);
    }
    let hidden = network.run(&samples, source.batch_size, &mut building, &mut |step| {
        reporter.advance(step.tokens as u64, Some(step.layer))
    })?;
    // The output head reads the final hidden states; few recipes ask for it.
    let head = model.module("lm_head")?;
    while stage.is_last() {
        for batch in &hidden {
            crate::network::Tap::<B>::input(&mut building, backend, &[head], batch)?;
        }
        if !building.look_again(None)? {
            break;
        }
    }
    reporter.end();
    Ok((building, summary))
}

/// The ledger of routed experts, where calibration data went through any.
fn experts(statistics: &Statistics) -> Option<Experts> {
    let layers: Vec<_> = statistics.routed.iter().map(|(layer, tokens)| (*layer, tokens.clone())).collect();
    let silent = statistics.silent.iter().map(|(&(layer, expert), stand_in)| SilentExpert {
        layer,
        expert,
        policy: stand_in.name(),
    });
    (!layers.is_empty()).then(|| Experts { silent: silent.collect(), layers })
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
