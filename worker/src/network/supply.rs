//! The layers of a pass in the order in which batches go through them. Where a device brings weights beside its computing, a thread
//! brings each layer while the one before is computed; elsewhere a layer is brought when it is asked for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use qlaunch_shared::{Error, ErrorKind, Result};

use super::layer::{Bring, LayerWeights};
use super::weights::Weights;
use crate::ops::Backend;
use crate::tensor::host::HostTensor;

/// A layer that was brought, and the moment from which on it is there.
type Brought<B> = (LayerWeights<<B as Backend>::Tensor>, <B as Backend>::Moment);

/// Layers on their way.
pub(super) struct Supply<'a, B: Backend> {
    backend: &'a B,
    weights: &'a dyn Weights,
    /// Where a thread brings them.
    ahead: Option<Receiver<Result<Brought<B>>>>,
    /// Whether it may stop.
    over: &'a AtomicBool,
}

impl<'a, B: Backend> Supply<'a, B> {
    /// Supplies layers in this order; where they come ahead, two are on the device at once: the one that was asked for last, and the
    /// next. A thread that brings them ends soon after `over`, which is set when the supply is dropped.
    pub(super) fn new<'scope>(
        scope: &'scope Scope<'scope, '_>,
        (backend, weights): (&'a B, &'a dyn Weights),
        order: Vec<usize>,
        over: &'a AtomicBool,
    ) -> Self
    where
        'a: 'scope,
    {
        let ahead = backend.brings_ahead().then(|| {
            // Nobody takes a layer before the one that it had is dropped.
            let (give, take) = sync_channel(0);
            scope.spawn(move || {
                for layer in order {
                    let brought = bring(backend, weights, layer, over);
                    let is_last = brought.is_err();
                    if give.send(brought).is_err() || is_last {
                        return;
                    }
                }
            });
            take
        });
        Self { backend, weights, ahead, over }
    }

    /// The next layer, which must be this one.
    ///
    /// # Errors
    /// A weight cannot be read, or the device fails.
    pub(super) fn next(&mut self, layer: usize) -> Result<LayerWeights<B::Tensor>> {
        let Some(ahead) = &self.ahead else {
            return LayerWeights::load(self.weights, layer, &mut InPlace(self.backend));
        };
        let lost = |_| Error::bug("the thread that brings layers has ended before its time");
        let (brought, moment) = ahead.recv().map_err(lost)??;
        self.backend.wait_for(&moment)?;
        match brought.layer == layer {
            true => Ok(brought),
            false => Err(Error::bug(format!("layer {} came, and {layer} is wanted", brought.layer))),
        }
    }
}

impl<B: Backend> Drop for Supply<'_, B> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Brings tensors when they are asked for.
struct InPlace<'b, B>(&'b B);

impl<B: Backend> Bring<B::Tensor> for InPlace<'_, B> {
    fn tensor(&mut self, tensor: HostTensor) -> Result<B::Tensor> {
        self.0.adopt(tensor)
    }
}

/// Brings them beside what the device computes, as long as somebody wants them.
struct Beside<'b, B> {
    backend: &'b B,
    over: &'b AtomicBool,
}

impl<B: Backend> Bring<B::Tensor> for Beside<'_, B> {
    fn tensor(&mut self, tensor: HostTensor) -> Result<B::Tensor> {
        match self.over.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Interrupted, "nobody wants this layer any more")),
            false => self.backend.bring(tensor),
        }
    }

    fn weight(&mut self, weights: &dyn Weights, module: usize) -> Result<B::Tensor> {
        if let Some(stored) = weights.stored(module)?
            && let Some(made) = self.backend.bring_stored(&stored)?
        {
            weights.release(module);
            return Ok(made);
        }
        self.tensor(weights.weight(module)?)
    }
}

/// Brings one layer, beside what the device computes.
fn bring<B: Backend>(
    backend: &B,
    weights: &dyn Weights,
    layer: usize,
    over: &AtomicBool,
) -> Result<Brought<B>> {
    let mut brought = None;
    backend.beside(&mut || {
        brought = Some(LayerWeights::load(weights, layer, &mut Beside { backend, over }));
    });
    let brought = brought.ok_or_else(|| Error::bug("a layer was not brought"))??;
    Ok((brought, backend.brought()?))
}
