//! The tap that makes a checkpoint while calibration data streams through the model: it observes a layer as often as the
//! recipe needs it, has the layer quantized and written, and goes on behind it, quantized where the recipe wants that.

use std::sync::Arc;

use qlaunch_shared::Result;
use qlaunch_shared::assign::Assignment;
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::SilentExperts;

use super::looks::{Look, behind_quantized, known_beforehand, known_of_layer, linears_of, served, waits};
use crate::calibrate::{Needs, Observer, Statistics};
use crate::evaluate::{ServedNumerics, Simulator};
use crate::export::Production;
use crate::network::{CacheSide, Inputs, Streaming, Tap, Turn};
use crate::ops::Backend;

/// A checkpoint that is made layer by layer.
pub(super) struct Building<'a> {
    assignment: &'a Assignment,
    model: &'a Model,
    observer: Observer<'a>,
    production: Production<'a>,
    /// What quantizers do to inputs by scales that need no calibration.
    known: ServedNumerics,
    look: Look,
    silent_experts: SilentExperts,
}

impl<'a> Building<'a> {
    /// Begins with nothing seen; `silent_experts` says what stands in for the statistics of experts without tokens.
    pub(super) fn new(
        assignment: &'a Assignment,
        model: &'a Model,
        production: Production<'a>,
        silent_experts: SilentExperts,
    ) -> Self {
        let observer = Observer::new(assignment, model);
        let known = known_beforehand(assignment);
        Self { assignment, model, observer, production, known, look: Look::First, silent_experts }
    }

    /// How often each batch goes through a layer.
    pub(super) fn passes(&self) -> usize {
        let waits = self.assignment.linears.iter().any(|linear| waits(self.assignment, linear.module));
        1 + usize::from(waits) + usize::from(behind_quantized(self.assignment))
    }

    /// How batches may go through the layers of one of several ranks.
    pub(super) fn streaming(&self) -> Streaming {
        if behind_quantized(self.assignment) {
            return Streaming::LayerByLayer;
        }
        let is_large = |needs: Needs| needs.gram || needs.rounded_gram || needs.block_grams.is_some();
        match self.assignment.linears.iter().any(|linear| is_large(self.observer.needs(linear.module))) {
            true => Streaming::AheadThenLayerByLayer,
            false => Streaming::InGroups,
        }
    }

    /// Says how many tokens each sample has.
    pub(super) fn set_length(&mut self, length: usize) {
        self.observer.set_length(length);
    }

    /// Share of the experts that every token is to be shown to.
    pub(super) fn experts_ratio(&self) -> Option<f64> {
        self.assignment.calibration.steps.iter().find_map(|step| step.experts_ratio)
    }

    /// Whether the inputs of a layer, or with `None` of what stands outside of layers, have to be seen once more; they
    /// are seen as their quantizers leave them from now on.
    ///
    /// # Errors
    /// An activation was not finite.
    pub(super) fn look_again(&mut self, layer: Option<usize>) -> Result<bool> {
        if !matches!(self.look, Look::First) || !self.waits(layer) {
            return Ok(false);
        }
        let known = known_of_layer(self.assignment, &self.observer.statistics, self.model, layer)?;
        self.look = Look::Rounded(known);
        Ok(true)
    }

    /// What is left to be finished, and what was seen of it.
    pub(super) fn into_parts(mut self) -> (Production<'a>, Statistics) {
        self.observer.settle();
        (self.production, self.observer.statistics)
    }

    fn waits(&self, layer: Option<usize>) -> bool {
        linears_of(self.assignment, self.model, layer).any(|linear| waits(self.assignment, linear.module))
    }

    /// Whether a third look is worth its time: something of the layer is quantized.
    fn goes_behind(&self, layer: usize) -> bool {
        let linears = linears_of(self.assignment, self.model, Some(layer));
        behind_quantized(self.assignment) && (linears.count() > 0 || self.assignment.cache(layer).is_some())
    }

    /// Quantizes and writes a layer; the next one is seen for the first time, or this one behind its quantizers.
    fn finish(&mut self, layer: usize) -> Result<Turn> {
        self.observer.settle();
        let known = (self.assignment, self.model);
        self.observer.statistics.settle_silent(known, layer, self.silent_experts)?;
        let statistics = &self.observer.statistics;
        let finished = self.production.finish(Some(layer), statistics, &mut |_| Ok(()))?;
        let turn = match self.goes_behind(layer) {
            true => {
                let (numerics, weights) =
                    served(self.assignment, statistics, self.model, (layer, &finished))?;
                self.look = Look::Behind(numerics);
                Turn::AgainWith(weights)
            }
            false => {
                self.look = Look::First;
                Turn::Next
            }
        };
        let model = self.model;
        self.observer.statistics.forget(|module| model.modules[module].layer == Some(layer));
        Ok(turn)
    }
}

/// Shows the observer what the quantizers of some readers leave of an activation.
fn show_rounded<B: Backend>(
    observer: &mut Observer<'_>,
    (backend, numerics): (&B, &ServedNumerics),
    readers: &[usize],
    x: &B::Tensor,
) -> Result<()> {
    let inputs = Simulator::new(numerics).input(backend, readers, x)?;
    let is_same = |left: &Option<Arc<B::Tensor>>, right: &Option<Arc<B::Tensor>>| match (left, right) {
        (Some(left), Some(right)) => Arc::ptr_eq(left, right),
        (left, right) => left.is_none() && right.is_none(),
    };
    let mut begin = 0;
    for same in inputs.chunk_by(is_same) {
        let own = &readers[begin..begin + same.len()];
        begin += same.len();
        if let Some(input) = same.first() {
            observer.rounded(backend, own, input.as_deref().unwrap_or(x))?;
        }
    }
    Ok(())
}

impl<B: Backend> Tap<B> for Building<'_> {
    fn input(&mut self, backend: &B, readers: &[usize], x: &B::Tensor) -> Result<Inputs<B::Tensor>> {
        let rounds = |observer: &Observer<'_>, module| observer.needs(module).rounded_gram;
        let assignment = self.assignment;
        let own = |observer: &Observer<'_>, waiting: bool| -> Vec<usize> {
            let readers = readers.iter().copied().filter(|&module| rounds(observer, module));
            readers.filter(|&module| waits(assignment, module) == waiting).collect()
        };
        match &self.look {
            Look::First => {
                let ready = own(&self.observer, false);
                if !ready.is_empty() {
                    show_rounded(&mut self.observer, (backend, &self.known), &ready, x)?;
                }
                self.observer.input(backend, readers, x)
            }
            Look::Rounded(numerics) => {
                let waited = own(&self.observer, true);
                if !waited.is_empty() {
                    show_rounded(&mut self.observer, (backend, numerics), &waited, x)?;
                }
                Ok(vec![None; readers.len()])
            }
            Look::Behind(numerics) => Simulator::new(numerics).input(backend, readers, x),
        }
    }

    fn output(&mut self, backend: &B, module: usize, x: &B::Tensor, y: &mut B::Tensor) -> Result<()> {
        match &self.look {
            Look::Behind(numerics) => Simulator::new(numerics).output(backend, module, x, y),
            Look::First | Look::Rounded(_) => Ok(()),
        }
    }

    fn routed(&mut self, layer: usize, tokens: &[u64]) -> Result<()> {
        self.observer.set_widening(false);
        match self.look {
            Look::First => Tap::<B>::routed(&mut self.observer, layer, tokens),
            Look::Rounded(_) | Look::Behind(_) => Ok(()),
        }
    }

    fn widened(&mut self, _layer: usize, _tokens: &[u64]) -> Result<()> {
        self.observer.set_widening(true);
        Ok(())
    }

    fn cache(&mut self, backend: &B, layer: usize, side: CacheSide, x: &mut B::Tensor) -> Result<()> {
        match &self.look {
            Look::First => self.observer.cache(backend, layer, side, x),
            Look::Rounded(_) => Ok(()),
            Look::Behind(numerics) => Simulator::new(numerics).cache(backend, layer, side, x),
        }
    }

    fn may_repeat(&self, layer: usize) -> bool {
        match self.look {
            Look::First => self.waits(Some(layer)) || self.goes_behind(layer),
            Look::Rounded(_) => self.goes_behind(layer),
            Look::Behind(_) => false,
        }
    }

    fn turn(&mut self, _backend: &B, layer: usize) -> Result<Turn> {
        if matches!(self.look, Look::Behind(_)) {
            self.look = Look::First;
            return Ok(Turn::Next);
        }
        match self.look_again(Some(layer))? {
            true => Ok(Turn::Again),
            false => self.finish(layer),
        }
    }
}
