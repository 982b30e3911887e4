//! The measuring of a checkpoint, and of what it is compared with.

use std::path::Path;

use qlaunch_shared::Result;
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{AttemptFolder, Evaluate, Evaluation, Level, Phase, Reference, Unit};
use qlaunch_shared::store::Assembly;

use super::data;
use super::measured::{Measured, decode, encode};
use super::quantization::Means;
use super::trail::Trail;
use crate::comm::Communicator;
use crate::evaluate::{
    Against, CheckpointWeights, KeptReference, ServedNumerics, Simulator, keep_reference, measure,
};
use crate::network::{CacheSide, Demands, Inputs, Network, Stage, Start, Streaming, Tap};
use crate::ops::Backend;
use crate::report::Reporter;
use crate::tensor::MappedCheckpoint;
use crate::tokens::{Samples, Use};

/// Final hidden states and output head.
struct States<T> {
    hidden: Vec<T>,
    head: T,
}

/// What a model is run on.
#[derive(Clone, Copy)]
struct Data<'a> {
    samples: &'a Samples,
    /// Samples of a batch.
    batch: usize,
}

/// Measures a checkpoint folder, which this job has made where `is_own` says so; `source` is the unquantized model that kept references belong to. The last rank measures,
/// and all learn the result. What the store has of it is not computed again.
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
    let batch = stage.batch(step.tokens.batch_size, samples.count());
    let data = Data { samples: &samples, batch };
    let path = backend.numeric_path();
    let kept = means.store.map(|store| {
        let assembly = is_own.then(|| Assembly::read(checkpoint)).transpose()?;
        Measured::of(store, (&model, assembly.as_ref()), comm, step, (&samples, path))
    });
    let kept = kept.transpose()?;
    if let Some(known) = known(kept.as_ref(), comm, &attempt.reference(), reporter)? {
        return Ok(known);
    }
    let reference = match &step.reference {
        Reference::Kept(path) if stage.is_last() => {
            let kept = KeptReference::open(path, &samples)?;
            let hidden = kept.batches(backend, batch * samples.length)?;
            Some(States { hidden, head: head(backend, &Model::open_any(source)?)? })
        }
        Reference::None | Reference::Keep | Reference::Kept(_) => None,
        Reference::Model(folder) => {
            let other = Model::open_any(folder)?;
            let stage = Stage::of(comm, &other, true)?;
            states(backend, (&other, &stage), data, None, (Phase::Reference, reporter))?
        }
    };
    let mut trail = kept.as_ref().filter(|_| comm.size() == 1).map(Measured::trail);
    let own = states(backend, (&model, &stage), data, trail.as_mut(), (Phase::Evaluate, reporter))?;
    let measured = match own {
        None => None,
        Some(own) => {
            if step.reference == Reference::Keep {
                let target = attempt.reference();
                match &kept {
                    Some(kept) => kept.keep_reference(backend, (&samples, &own.hidden), &target)?,
                    None => keep_reference(&target, backend, &samples, &own.hidden)?,
                }
            }
            let candidate = Against { hidden: &own.hidden, head: &own.head };
            let reference = reference.as_ref();
            let reference = reference.map(|states| Against { hidden: &states.hidden, head: &states.head });
            let measured = measure(backend, &samples, &candidate, reference.as_ref(), &mut |tokens| {
                comm.check()?;
                reporter.advance(tokens as u64, None)
            })?;
            kept.iter().try_for_each(|kept| kept.keep(&measured))?;
            Some(measured)
        }
    };
    let message = measured.as_ref().map_or_else(Vec::new, encode);
    let evaluation = decode(&comm.broadcast(comm.size() - 1, message)?)?;
    trail.iter().for_each(Trail::forget);
    reporter.end();
    if !evaluation.perplexity.is_finite() {
        reporter.note(Level::Warning, "the perplexity is not finite");
    }
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

/// The simulator, and the hidden states behind each layer kept.
struct Kept<'s, 't, 'a> {
    simulator: Simulator<'s>,
    trail: Option<&'t mut Trail<'a>>,
    samples: &'s Samples,
}

impl<B: Backend> Tap<B> for Kept<'_, '_, '_> {
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

    fn passed(&mut self, backend: &B, layer: usize, hidden: &[B::Tensor]) -> Result<()> {
        match &mut self.trail {
            Some(trail) => trail.pass(backend, layer, (self.samples, hidden)),
            None => Ok(()),
        }
    }
}

/// Runs a model or checkpoint with its quantization simulated, from the last hidden states on its trail; the last rank has the
/// result.
fn states<B: Backend>(
    backend: &B,
    (model, stage): (&Model, &Stage<'_>),
    data: Data<'_>,
    trail: Option<&mut Trail<'_>>,
    (phase, reporter): (Phase, &mut Reporter),
) -> Result<Option<States<B::Tensor>>> {
    let files = MappedCheckpoint::open(model.files.clone())?;
    let weights = CheckpointWeights::open(model, &files)?;
    let numerics = ServedNumerics::read(model, &files)?;
    let mut say = |text: String| reporter.note(Level::Warning, text);
    let begin = match &trail {
        Some(trail) => trail.last(backend, (data.samples, data.batch), model.config.layers, &mut say)?,
        None => None,
    };
    let (first, begin) = begin.map_or((stage.layers.start, None), |(layer, states)| (layer, Some(states)));
    let start = Start { states: begin, ..Start::at(first..stage.layers.end) };
    // The output head counts as one layer more where predictions are scored.
    let layers = start.layers.len() + usize::from(phase == Phase::Evaluate && stage.is_last());
    let network = Network::new(backend, &weights).on(stage.clone(), Streaming::InGroups);
    let total = (data.samples.ids.len() * layers) as u64;
    reporter.begin(phase, total, Unit::TokenLayers, Some(layers));
    if trail.is_some() {
        reporter.keep_layers();
    }
    let mut tap = Kept { simulator: Simulator::new(&numerics), trail, samples: data.samples };
    let hidden = network.run_from(start, data.samples, data.batch, &mut tap, &mut |step| {
        reporter.advance(step.tokens as u64, Some(step.layer))
    })?;
    if !stage.is_last() {
        return Ok(None);
    }
    let mut hidden = network.norm(&hidden)?;
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
