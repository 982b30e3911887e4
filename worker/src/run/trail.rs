//! Hidden states in the store while samples go through a model layer by layer, for an attempt to go on from that was stopped:
//! always those behind the last layer that is done.

use qlaunch_shared::store::Origin;
use qlaunch_shared::{Error, Result};

use crate::evaluate::{KeptReference, keep_reference};
use crate::network::Batches;
use crate::ops::Backend;
use crate::report::Reporter;
use crate::store::{Artifact, Store};
use crate::tokens::Samples;

/// File of hidden states.
pub(super) const STATES: &str = "hidden.safetensors";

/// What is kept on the way through one model.
pub(super) struct Trail<'a> {
    store: &'a Store,
    /// The model, for people.
    name: String,
    /// Origins of the states before a layer; under the number of layers those behind the last.
    states: Vec<(usize, Origin)>,
    /// What this process has put there.
    own: Option<Origin>,
}

impl<'a> Trail<'a> {
    /// Through a model of this name, by the origins of the states before each layer that they may be kept before.
    pub(super) const fn new(store: &'a Store, name: String, states: Vec<(usize, Origin)>) -> Self {
        Self { store, name, states, own: None }
    }

    fn origin(&self, layer: usize) -> Option<&Origin> {
        self.states.iter().find(|(before, _)| *before == layer).map(|(_, origin)| origin)
    }

    /// Layers of the model that states may be kept before.
    pub(super) fn layers(&self) -> usize {
        self.states.last().map_or(0, |(layer, _)| *layer)
    }

    /// The origin of the states before a layer.
    ///
    /// # Errors
    /// There is no such layer.
    pub(super) fn before(&self, layer: usize) -> Result<&Origin> {
        self.origin(layer)
            .ok_or_else(|| Error::bug(format!("hidden states before layer {layer} have no key")))
    }

    /// Whether the states before a layer are there.
    pub(super) fn has(&self, layer: usize) -> bool {
        self.origin(layer).is_some_and(|origin| self.store.has(origin))
    }

    /// The layer with the last hidden states that are there, none of which lies behind `last`, and the states.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(super) fn last<B: Backend>(
        &self,
        backend: &B,
        batches: Batches<'_>,
        last: usize,
        say: &mut dyn FnMut(String),
    ) -> Result<Option<(usize, Vec<B::Tensor>)>> {
        for (layer, origin) in self.states.iter().rev().filter(|(layer, _)| *layer <= last) {
            if let Some(found) = self.store.get(origin, say)? {
                // Another job may take them away in this moment.
                match read(&found, backend, batches.samples, batches.batch) {
                    Ok(states) => return Ok(Some((*layer, states))),
                    Err(error) => tracing::debug!("{error}"),
                }
            }
        }
        Ok(None)
    }

    /// Keeps the hidden states behind a layer, in place of those that were kept before.
    ///
    /// # Errors
    /// The disk is full, or the job is to stop.
    pub(super) fn pass<B: Backend>(
        &mut self,
        backend: &B,
        layer: usize,
        (samples, states): (&Samples, &[B::Tensor]),
    ) -> Result<()> {
        let Some(origin) = self.origin(layer + 1).cloned() else { return Ok(()) };
        let about = format!("hidden states behind layer {layer} of {}", self.name);
        write(self.store, (&origin, &about), backend, samples, (states, None))?;
        if let Some(before) = self.own.replace(origin) {
            self.store.remove(&before);
        }
        Reporter::layer_kept()
    }

    /// Takes the hidden states away, once nothing needs them any more. Another job that goes on from the same ones begins
    /// further ahead, or at the first layer.
    pub(super) fn forget(&self) {
        for (_, origin) in self.states.iter().filter(|(_, origin)| self.store.has(origin)) {
            self.store.remove(origin);
        }
    }
}

/// Puts hidden states into the store, one `[tokens, hidden_size]` a batch, with the mean loss of final ones.
///
/// # Errors
/// The disk is full.
pub(super) fn write<B: Backend>(
    store: &Store,
    (origin, about): (&Origin, &str),
    backend: &B,
    samples: &Samples,
    states: (&[B::Tensor], Option<f64>),
) -> Result<()> {
    let mut draft = store.draft(origin.clone(), about)?;
    keep_reference(&draft.path(STATES), backend, samples, states)?;
    draft.adopt(STATES)?;
    draft.commit(0.0)?;
    Ok(())
}

/// Reads hidden states as batches of so many samples.
///
/// # Errors
/// They cannot be read, or are of other tokens.
pub(super) fn read<B: Backend>(
    artifact: &Artifact,
    backend: &B,
    samples: &Samples,
    batch: usize,
) -> Result<Vec<B::Tensor>> {
    let kept = KeptReference::open(&artifact.path(STATES), samples)?;
    kept.batches(backend, batch * samples.length)
}
