//! The measuring of a checkpoint, and of what it is compared with.

use std::path::Path;

use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{AttemptFolder, Evaluate, Evaluation, Level, Phase, Reference, Unit};
use qlaunch_shared::{Error, Result};

use super::data;
use crate::comm::Communicator;
use crate::evaluate::{
    Against, CheckpointWeights, KeptReference, ServedNumerics, Simulator, keep_reference, measure,
};
use crate::network::{Network, Stage, Streaming, Tap};
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

/// Measures a checkpoint folder; `source` is the unquantized model that kept references belong to. The last rank measures,
/// and all learn the result.
pub(super) fn evaluate<B: Backend>(
    (backend, comm): (&B, &dyn Communicator),
    checkpoint: &Path,
    source: &Path,
    step: &Evaluate,
    (attempt, reporter): (&AttemptFolder, &mut Reporter),
) -> Result<Evaluation> {
    let model = Model::open_any(checkpoint)?;
    let stage = Stage::of(comm, &model, true)?;
    let samples = data::samples(&model, &step.tokens, Use::Evaluation, reporter)?;
    let batch = stage.batch(step.tokens.batch_size, samples.count());
    let data = Data { samples: &samples, batch };
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
            states(backend, (&other, &stage), data, (Phase::Reference, reporter))?
        }
    };
    let own = states(backend, (&model, &stage), data, (Phase::Evaluate, reporter))?;
    let measured = match own {
        None => None,
        Some(own) => {
            if step.reference == Reference::Keep {
                keep_reference(&attempt.reference(), backend, &samples, &own.hidden)?;
            }
            let candidate = Against { hidden: &own.hidden, head: &own.head };
            let reference = reference.as_ref();
            let reference = reference.map(|states| Against { hidden: &states.hidden, head: &states.head });
            Some(measure(backend, &samples, &candidate, reference.as_ref(), &mut |tokens| {
                comm.check()?;
                reporter.advance(tokens as u64, None)
            })?)
        }
    };
    let message = measured.as_ref().map_or_else(Vec::new, encode);
    let evaluation = decode(&comm.broadcast(comm.size() - 1, message)?)?;
    reporter.end();
    if !evaluation.perplexity.is_finite() {
        reporter.note(Level::Warning, "the perplexity is not finite");
    }
    Ok(evaluation)
}

/// An evaluation as a message: every number by its bits, since JSON has no word for some.
fn encode(evaluation: &Evaluation) -> Vec<u8> {
    let options = [evaluation.kl_mean, evaluation.reference_perplexity];
    let options = options.into_iter().flat_map(|option| [u64::from(option.is_some()), bits(option)]);
    let numbers = [
        evaluation.perplexity.to_bits(),
        evaluation.nll.to_bits(),
        evaluation.tokens,
        evaluation.windows as u64,
    ];
    numbers.into_iter().chain(options).flat_map(u64::to_le_bytes).collect()
}

fn bits(option: Option<f64>) -> u64 {
    option.unwrap_or(0.0).to_bits()
}

fn decode(message: &[u8]) -> Result<Evaluation> {
    let numbers: Vec<u64> =
        message.as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
    let &[perplexity, nll, tokens, windows, has_kl, kl, has_reference, reference] = &numbers[..] else {
        return Err(Error::bug("the last rank's measurement is torn"));
    };
    let option = |is_there, bits| (is_there == 1).then_some(f64::from_bits(bits));
    Ok(Evaluation {
        perplexity: f64::from_bits(perplexity),
        nll: f64::from_bits(nll),
        tokens,
        windows: windows as usize,
        kl_mean: option(has_kl, kl),
        reference_perplexity: option(has_reference, reference),
    })
}

/// Runs a model or checkpoint with its quantization simulated; the last rank has the result.
fn states<B: Backend>(
    backend: &B,
    (model, stage): (&Model, &Stage<'_>),
    data: Data<'_>,
    (phase, reporter): (Phase, &mut Reporter),
) -> Result<Option<States<B::Tensor>>> {
    let files = MappedCheckpoint::open(model.files.clone())?;
    let weights = CheckpointWeights::open(model, &files)?;
    let numerics = ServedNumerics::read(model, &files)?;
    let network = Network::new(backend, &weights).on(stage.clone(), Streaming::InGroups);
    // The output head counts as one layer more where predictions are scored.
    let layers = stage.layers.len() + usize::from(phase == Phase::Evaluate && stage.is_last());
    let total = (data.samples.ids.len() * layers) as u64;
    reporter.begin(phase, total, Unit::TokenLayers, Some(layers));
    let mut simulator = Simulator::new(&numerics);
    let mut hidden = network.run(data.samples, data.batch, &mut simulator, &mut |step| {
        reporter.advance(step.tokens as u64, Some(step.layer))
    })?;
    if !stage.is_last() {
        return Ok(None);
    }
    let (module, head) = network.head()?;
    for states in &mut hidden {
        let replaced = Tap::<B>::input(&mut simulator, backend, &[module], states)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_survives_the_way_between_ranks_to_the_bit() {
        let odd = Evaluation {
            perplexity: f64::INFINITY,
            nll: f64::from_bits(0x7ff8_0000_0000_1234),
            tokens: u64::MAX,
            windows: 3,
            kl_mean: Some(-0.0),
            reference_perplexity: None,
        };
        let same = decode(&encode(&odd)).unwrap();
        assert_eq!(encode(&same), encode(&odd));
        assert_eq!(same.reference_perplexity, None);
        assert!(decode(&encode(&odd)[1..]).is_err());
    }
}
