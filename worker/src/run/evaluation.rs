//! The measuring of a checkpoint, and of what it is compared with.

use std::path::Path;

use qlaunch_shared::Result;
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{AttemptFolder, Evaluate, Evaluation, Level, Phase, Reference, Unit};

use super::data;
use crate::evaluate::{
    Against, CheckpointWeights, KeptReference, ServedNumerics, Simulator, keep_reference, measure,
};
use crate::network::{Network, Tap};
use crate::ops::Backend;
use crate::report::Reporter;
use crate::tensor::MappedCheckpoint;
use crate::tokens::{Samples, Use};

/// Final hidden states and output head.
struct States<T> {
    hidden: Vec<T>,
    head: T,
}

/// Measures a checkpoint folder; `source` is the unquantized model that kept references belong to.
pub(super) fn evaluate<B: Backend>(
    backend: &B,
    checkpoint: &Path,
    source: &Path,
    step: &Evaluate,
    (attempt, reporter): (&AttemptFolder, &mut Reporter),
) -> Result<Evaluation> {
    let model = Model::open_any(checkpoint)?;
    let samples = data::samples(&model, &step.tokens, Use::Evaluation, reporter)?;
    let batch = step.tokens.batch_size;
    let reference = match &step.reference {
        Reference::None | Reference::Keep => None,
        Reference::Kept(path) => {
            let kept = KeptReference::open(path, &samples)?;
            let hidden = kept.batches(backend, batch * samples.length)?;
            Some(States { hidden, head: head(backend, &Model::open_any(source)?)? })
        }
        Reference::Model(folder) => {
            let other = Model::open_any(folder)?;
            Some(states(backend, &other, &samples, batch, (Phase::Reference, reporter))?)
        }
    };
    let own = states(backend, &model, &samples, batch, (Phase::Evaluate, reporter))?;
    if step.reference == Reference::Keep {
        keep_reference(&attempt.reference(), backend, &samples, &own.hidden)?;
    }
    let candidate = Against { hidden: &own.hidden, head: &own.head };
    let reference = reference.as_ref().map(|states| Against { hidden: &states.hidden, head: &states.head });
    let evaluation = measure(backend, &samples, &candidate, reference.as_ref(), &mut |tokens| {
        reporter.advance(tokens as u64, None)
    })?;
    reporter.end();
    if !evaluation.perplexity.is_finite() {
        reporter.note(Level::Warning, "the perplexity is not finite");
    }
    Ok(evaluation)
}

/// Runs a model or checkpoint with its quantization simulated.
fn states<B: Backend>(
    backend: &B,
    model: &Model,
    samples: &Samples,
    batch: usize,
    (phase, reporter): (Phase, &mut Reporter),
) -> Result<States<B::Tensor>> {
    let files = MappedCheckpoint::open(model.files.clone())?;
    let weights = CheckpointWeights::open(model, &files)?;
    let numerics = ServedNumerics::read(model, &files)?;
    let network = Network::new(backend, &weights);
    // The output head counts as one layer more where predictions are scored.
    let layers = model.config.layers + usize::from(phase == Phase::Evaluate);
    let total = (samples.ids.len() * layers) as u64;
    reporter.begin(phase, total, Unit::TokenLayers, Some(layers));
    let mut simulator = Simulator::new(&numerics);
    let mut hidden = network.run(samples, batch, &mut simulator, &mut |step| {
        reporter.advance(step.tokens as u64, Some(step.layer))
    })?;
    let (module, head) = network.head()?;
    for states in &mut hidden {
        let replaced = Tap::<B>::input(&mut simulator, backend, &[module], states)?;
        if let Some(Some(rounded)) = replaced.into_iter().next() {
            *states = std::sync::Arc::unwrap_or_clone(rounded);
        }
    }
    Ok(States { hidden, head })
}

/// The output head of an unquantized model.
fn head<B: Backend>(backend: &B, model: &Model) -> Result<B::Tensor> {
    let files = MappedCheckpoint::open(model.files.clone())?;
    let weights = CheckpointWeights::open(model, &files)?;
    Ok(Network::new(backend, &weights).head()?.1)
}
