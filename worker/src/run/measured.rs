//! A measurement and the store: the figures where somebody has them already, the reference for others, and hidden states on
//! the way for an attempt to go on from.

use std::fs;
use std::path::Path;

use qlaunch_shared::digest::sha256_of_file;
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::{Evaluate, Evaluation, NumericPath, Reference};
use qlaunch_shared::store::{Assembly, Origin, Served};
use qlaunch_shared::{Error, Result};

use super::data;
use super::digests::digests;
use super::kept::name;
use super::relay::{Observed, Relay};
use super::trail::{STATES, Trail, write};
use super::way::Way;
use crate::comm::Communicator;
use crate::network::{Batches, Stage};
use crate::ops::Backend;
use crate::store::Store;
use crate::tensor::MappedCheckpoint;
use crate::tokens::Samples;

/// File of an artifact of figures.
const FIGURES: &str = "evaluation.bin";

/// One model or checkpoint on some tokens, as the store knows it.
pub(super) struct Measured<'a> {
    store: &'a Store,
    name: String,
    served: Served,
    figures: Origin,
    /// Whether the final hidden states are kept too.
    is_reference: bool,
}

impl<'a> Measured<'a> {
    /// What the store calls what `step` measures of a model, or of a checkpoint that was assembled just now. The first rank
    /// reads what it takes, and the others hear of it.
    ///
    /// # Errors
    /// The model or the reference cannot be read, the store cannot be written, or a rank is gone.
    pub(super) fn of(
        store: &'a Store,
        (model, assembly): (&Model, Option<&Assembly>),
        comm: &dyn Communicator,
        step: &Evaluate,
        (samples, path): (&Samples, NumericPath),
    ) -> Result<Self> {
        let tokens = data::identity(samples);
        let on = (tokens.as_str(), path);
        let by_tensors = |model: &Model| {
            let files = MappedCheckpoint::open(model.files.clone())?;
            Served::by_tensors(model, &digests(store, (model, &files), comm)?, on)
        };
        let served = match assembly {
            Some(assembly) => Served::by_pieces(model, assembly, on)?,
            None => by_tensors(model)?,
        };
        let reference = match &step.reference {
            Reference::None | Reference::Keep => None,
            Reference::Kept(path) => Some(sha256_of_file(path)?.0),
            Reference::Model(folder) => {
                Some(by_tensors(&Model::open_any(folder)?)?.reference().key().to_string())
            }
        };
        let figures = served.evaluation(reference.as_deref());
        let is_reference = step.reference == Reference::Keep;
        Ok(Self { store, name: name(model), served, figures, is_reference })
    }

    /// The figures, where they are there; and with them the reference, which is put at `target` if it is asked for.
    ///
    /// # Errors
    /// The store or the target cannot be written.
    pub(super) fn find(&self, target: &Path, say: &mut dyn FnMut(String)) -> Result<Option<Evaluation>> {
        let Some(found) = self.store.get(&self.figures, say)? else { return Ok(None) };
        if self.is_reference && !self.hand_out(target, say)? {
            return Ok(None);
        }
        decode(&found.read(FIGURES)?).map(Some)
    }

    /// Keeps the figures.
    ///
    /// # Errors
    /// The disk is full.
    pub(super) fn keep(&self, evaluation: &Evaluation) -> Result<()> {
        let about = format!("perplexity {:.3} of {}", evaluation.perplexity, self.name);
        let mut draft = self.store.draft(self.figures.clone(), &about)?;
        draft.add(FIGURES, &encode(evaluation))?;
        draft.commit(0.0).map(drop)
    }

    /// Keeps the final hidden states with the mean loss that they come to, and puts them at `target` for the run.
    ///
    /// # Errors
    /// The disk is full.
    pub(super) fn keep_reference<B: Backend>(
        &self,
        backend: &B,
        samples: &Samples,
        states: (&[B::Tensor], Option<f64>),
        target: &Path,
    ) -> Result<()> {
        let about = format!("final hidden states of {}", self.name);
        write(self.store, (&self.served.reference(), &about), backend, samples, states)?;
        match self.hand_out(target, &mut |_| ())? {
            true => Ok(()),
            false => Err(Error::new(
                qlaunch_shared::ErrorKind::Resumable,
                "the reference was kept, and cannot be found",
            )
            .at(&self.store.folder().0)
            .hint("start the job again")),
        }
    }

    /// Puts the reference at `target`, as a hard link where that is possible; whether it was there.
    fn hand_out(&self, target: &Path, say: &mut dyn FnMut(String)) -> Result<bool> {
        let Some(found) = self.store.get(&self.served.reference(), say)? else { return Ok(false) };
        let source = found.path(STATES);
        // What an attempt before this one left.
        let _ = fs::remove_file(target);
        if fs::hard_link(&source, target).is_err() {
            fs::copy(&source, target).map_err(|error| Error::io("write the reference", target, &error))?;
        }
        Ok(true)
    }

    /// What is kept of the way of the tokens through the model: by a single process, or by the last of several ranks.
    ///
    /// # Errors
    /// The model has no layer.
    pub(super) fn way<'d>(&self, stage: &Stage<'_>, batches: Batches<'d>) -> Result<Way<'d>>
    where
        'a: 'd,
    {
        let trail = Trail::new(self.store, self.name.clone(), self.served.hidden());
        if stage.comm.size() == 1 {
            return Ok(Way::Alone(trail));
        }
        Ok(Way::Among(Relay::new(self.store, trail.before(trail.layers())?, Observed::default(), batches)))
    }
}

/// Figures as bytes: every number by its bits, since JSON has no word for some.
pub(super) fn encode(evaluation: &Evaluation) -> Vec<u8> {
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

/// Figures from the bytes of [`encode`].
///
/// # Errors
/// They are torn.
pub(super) fn decode(message: &[u8]) -> Result<Evaluation> {
    let numbers: Vec<u64> =
        message.as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
    let &[perplexity, nll, tokens, windows, has_kl, kl, has_reference, reference] = &numbers[..] else {
        return Err(Error::bug("a measurement is torn"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_survives_the_way_to_others_to_the_bit() {
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
