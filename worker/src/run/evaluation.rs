//! The measuring of a checkpoint, and of what it is compared with.

use std::path::Path;

use qlaunch_shared::Result;
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{AttemptFolder, Evaluate, Evaluation, Level, Phase, Reference, Unit};
use qlaunch_shared::store::Assembly;

use super::data;
use super::measured::{Measured, decode, encode};
use super::quantization::Means;
use super::way::Way;
use crate::comm::Communicator;
use crate::evaluate::{
    Against, CheckpointWeights, Hope, KeptReference, ServedNumerics, Simulator, check_finite, keep_reference,
    measure,
};
use crate::network::{Batches, CacheSide, Demands, Inputs, Network, Stage, Streaming, Tap};
use crate::ops::Backend;
use crate::report::Reporter;
use crate::tensor::MappedCheckpoint;
use crate::tokens::Use;

/// Final hidden states and output head.
struct States<T> {
    hidden: Vec<T>,
    head: T,
}

/// Measures a checkpoint folder, which this job has made where `is_own` says so; `source` is the unquantized model that kept
/// references belong to. The last rank measures, and all learn the result. What the store has of it is not computed again.
pub(super) fn evaluate<B: Backend>(
    (backend, means): (&B, Means<'_>),
    (checkpoint, is_own): (&Path, bool),
    source: &Path,
    step: &Evaluate,
    (attempt, reporter): (&AttemptFolder, &mut Reporter),
) -> Result<Evaluation> {
    let comm = means.comm;
    let model = Model::open_any(checkpoint)?;
    let stage = Stage::of(comm, &model, true)?;
    let samples = data::samples((&model, means.store), &step.tokens, Use::Evaluation, reporter)?;
    let batches = Batches::of(&stage, &samples, step.tokens.batch_size);
    let path = backend.numeric_path();
    let kept = means.store.map(|store| {
        let assembly = is_own.then(|| Assembly::read(checkpoint)).transpose()?;
        Measured::of(store, (&model, assembly.as_ref()), comm, step, (&samples, path))
    });
    let kept = kept.transpose()?;
    if let Some(known) = known(kept.as_ref(), comm, &attempt.reference(), reporter)? {
        return Ok(known);
    }
    let mut base = None;
    let reference = match &step.reference {
        Reference::Kept(path) if stage.is_last() => {
            let kept = KeptReference::open(path, &samples)?;
            base = kept.perplexity();
            let hidden = kept.batches(backend, batches.batch * samples.length)?;
            Some(States { hidden, head: head(backend, &Model::open_any(source)?)? })
        }
        Reference::None | Reference::Keep | Reference::Kept(_) => None,
        Reference::Model(folder) => {
            let other = Model::open_any(folder)?;
            let stage = Stage::of(comm, &other, true)?;
            states(backend, (&other, &stage), batches, &mut Way::Untold, (Phase::Reference, reporter))?
        }
    };
    let mut way = kept.as_ref().map_or(Ok(Way::Untold), |kept| kept.way(&stage, batches))?;
    let own = states(backend, (&model, &stage), batches, &mut way, (Phase::Evaluate, reporter))?;
    let measured = match own {
        None => None,
        Some(own) => {
            let candidate = Against { hidden: &own.hidden, head: &own.head };
            let reference = reference.as_ref();
            let reference = reference.map(|states| Against { hidden: &states.hidden, head: &states.head });
            let hope = Hope::below(&step.ceilings, base);
            let against = (reference.as_ref(), &hope);
            let measured = measure(backend, &samples, &candidate, against, &mut |tokens| {
                comm.check()?;
                reporter.advance(tokens as u64, None)
            })?;
            if step.reference == Reference::Keep {
                let (target, states) = (attempt.reference(), (&own.hidden[..], Some(measured.nll)));
                match &kept {
                    Some(kept) => kept.keep_reference(backend, &samples, states, &target)?,
                    None => keep_reference(&target, backend, &samples, states)?,
                }
            }
            kept.iter().try_for_each(|kept| kept.keep(&measured))?;
            Some(measured)
        }
    };
    let message = measured.as_ref().map_or_else(Vec::new, encode);
    let evaluation = decode(&comm.broadcast(comm.size() - 1, message)?)?;
    way.forget();
    reporter.end();
    Ok(evaluation)
}

/// The figures that the store has; the first rank looks, and all go on with what it found.
fn known(
    kept: Option<&Measured<'_>>,
    comm: &dyn Communicator,
    reference: &Path,
    reporter: &mut Reporter,
) -> Result<Option<Evaluation>> {
    let Some(kept) = kept else { return Ok(None) };
    let found = match comm.rank() {
        0 => kept.find(reference, &mut |text| reporter.note(Level::Warning, text))?,
        _ => None,
    };
    let message = comm.broadcast(0, found.as_ref().map_or_else(Vec::new, encode))?;
    if message.is_empty() {
        return Ok(None);
    }
    reporter.note(Level::Info, "the store has the figures of these very bytes: nothing is measured again");
    decode(&message).map(Some)
}

/// The simulator, with hidden states kept on the way.
struct Simulated<'s, 'w, 'a> {
    simulator: Simulator<'s>,
    way: &'w mut Way<'a>,
    batches: Batches<'s>,
}

impl<B: Backend> Tap<B> for Simulated<'_, '_, '_> {
    fn demands(&self) -> Demands {
        Demands { codes: true, scores: true, ..Demands::default() }
    }

    fn input(&mut self, backend: &B, readers: &[usize], x: &B::Tensor) -> Result<Inputs<B::Tensor>> {
        self.simulator.input(backend, readers, x)
    }

    fn output(&mut self, backend: &B, module: usize, x: &B::Tensor, y: &mut B::Tensor) -> Result<()> {
        self.simulator.output(backend, module, x, y)
    }

    fn cache(&mut self, backend: &B, layer: usize, side: CacheSide, x: &mut B::Tensor) -> Result<()> {
        self.simulator.cache(backend, layer, side, x)
    }

    fn behind(&mut self, backend: &B, layer: usize, batch: usize, hidden: &B::Tensor) -> Result<()> {
        let Batches { samples, batch: size, .. } = self.batches;
        check_finite(backend, (layer, batch * size), samples.length, hidden)
    }

    fn passed(&mut self, backend: &B, layer: usize, hidden: &[B::Tensor]) -> Result<()> {
        self.way.passed(backend, layer, (self.batches.samples, hidden))
    }

    fn left(&mut self, backend: &B, group: usize, states: &[B::Tensor]) -> Result<()> {
        self.way.left(backend, group, states)
    }

    fn grouped(&mut self, _groups: usize, _seen: bool) -> Result<()> {
        self.way.grouped()
    }
}

/// Runs a model or checkpoint with its quantization simulated, from where another attempt has come; the last rank has the result.
fn states<B: Backend>(
    backend: &B,
    (model, stage): (&Model, &Stage<'_>),
    batches: Batches<'_>,
    way: &mut Way<'_>,
    (phase, reporter): (Phase, &mut Reporter),
) -> Result<Option<States<B::Tensor>>> {
    let files = MappedCheckpoint::open(model.files.clone())?;
    let weights = CheckpointWeights::open(model, &files)?;
    let numerics = ServedNumerics::read(model, &files)?;
    let mut say = |text: String| reporter.note(Level::Warning, text);
    let begun = way.begin(backend, (stage, batches), &mut say)?;
    // The output head counts as one layer more where predictions are scored.
    let layers = begun.start.layers.len();
    let head = if phase == Phase::Evaluate && stage.is_last() { batches.samples.count() } else { 0 };
    let network = Network::new(backend, &weights).on(stage.clone(), Streaming::InGroups);
    let total = ((begun.samples * layers + head) * batches.samples.length) as u64;
    reporter.begin(phase, total, Unit::TokenLayers, Some(layers + usize::from(head > 0)));
    if way.is_kept() {
        reporter.keep_layers();
    }
    let simulator = Simulator::new(&numerics);
    let mut tap = Simulated { simulator, way, batches };
    let behind = network.run_from(begun.start, batches, &mut tap, &mut |step| {
        reporter.advance(step.tokens as u64, Some(step.layer))
    })?;
    if !stage.is_last() {
        return Ok(None);
    }
    let mut hidden = network.norm(&[begun.done, behind].concat())?;
    let (module, head) = network.head()?;
    for states in &mut hidden {
        let replaced = Tap::<B>::input(&mut tap, backend, &[module], states)?;
        if let Some(Some(rounded)) = replaced.into_iter().next() {
            *states = std::sync::Arc::unwrap_or_clone(rounded);
        }
    }
    Ok(Some(States { hidden, head }))
}

/// The output head of an unquantized model.
fn head<B: Backend>(backend: &B, model: &Model) -> Result<B::Tensor> {
    let files = MappedCheckpoint::open(model.files.clone())?;
    let weights = CheckpointWeights::open(model, &files)?;
    Ok(Network::new(backend, &weights).head()?.1)
}
