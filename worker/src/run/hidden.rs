//! Hidden states in the store, for a calibration that was stopped to go on from.

use qlaunch_shared::Result;
use qlaunch_shared::store::Origin;

use crate::evaluate::{KeptReference, keep_reference};
use crate::ops::Backend;
use crate::store::{Artifact, Store};
use crate::tokens::Samples;

/// File of the artifact.
const STATES: &str = "hidden.safetensors";

/// Puts hidden states into the store, one `[tokens, hidden_size]` a batch.
///
/// # Errors
/// The disk is full.
pub(super) fn write<B: Backend>(
    store: &Store,
    (origin, about): (&Origin, &str),
    backend: &B,
    (samples, states): (&Samples, &[B::Tensor]),
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
