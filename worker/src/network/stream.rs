//! Layer-major streaming: each layer is brought in once and serves every batch, so memory is activations and one layer.
//!
//! Over several ranks, each of which owns a block of layers, batches go through a block in groups, so that the next rank
//! starts with the first group while this one works on the second; a block's layers are then brought in once a group.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use qlaunch_shared::model::Model;
use qlaunch_shared::{Error, Result};

use super::batches::Batches;
use super::decoder::{CacheSide, Inputs, Pass, Tap, Turn};
use super::layer::LayerWeights;
use super::memory::{Load, Needs};
use super::outbox::Outbox;
use super::rotary;
use super::stage::Stage;
use super::start::{Progress, Start, Streaming};
use super::supply::Supply;
use super::weights::Weights;
use crate::ops::Backend;
use crate::tokens::Samples;

/// Sees nothing.
struct Unseen;

impl<B: Backend> Tap<B> for Unseen {
    fn input(&mut self, _backend: &B, readers: &[usize], _x: &B::Tensor) -> Result<Inputs<B::Tensor>> {
        Ok(vec![None; readers.len()])
    }

    fn cache(&mut self, _backend: &B, _layer: usize, _side: CacheSide, _x: &mut B::Tensor) -> Result<()> {
        Ok(())
    }
}

/// A model on a backend.
pub struct Network<'a, B: Backend> {
    backend: &'a B,
    weights: &'a dyn Weights,
    experts_ratio: Option<f64>,
    stage: Stage<'a>,
    streaming: Streaming,
    is_end_read: bool,
}

/// Batches on their way through a stage, and who is told about it.
struct Flow<'f, 'e, B: Backend> {
    pass: Pass<'e, B>,
    progress: &'f mut dyn FnMut(Progress) -> Result<()>,
    /// Hidden states before the first layer, where this rank embeds tokens.
    embedded: std::vec::IntoIter<B::Tensor>,
    batches: Batches<'e>,
    /// The layers, in the order of [`Streaming::order`].
    supply: Supply<'e, B>,
    /// The way to the stage behind; none where this one is the last.
    outbox: Option<Outbox<'f, B>>,
}

impl<B: Backend> Flow<'_, '_, B> {
    /// Waits until all that was sent on is handed over: taps may have something of their own to tell other ranks.
    fn close(&mut self) -> Result<()> {
        self.outbox.take().map_or(Ok(()), Outbox::close)
    }
}

impl<'a, B: Backend> Network<'a, B> {
    /// Runs a model's weights on a backend.
    pub fn new(backend: &'a B, weights: &'a dyn Weights) -> Self {
        let stage = Stage::whole(weights.model());
        Self {
            backend,
            weights,
            experts_ratio: None,
            stage,
            streaming: Streaming::LayerByLayer,
            is_end_read: true,
        }
    }

    /// Runs one rank's share only.
    #[must_use]
    pub fn on(self, stage: Stage<'a>, streaming: Streaming) -> Self {
        Self { stage, streaming, ..self }
    }

    /// Computes the last layer that is gone through as far as its linears read anything: what [`Network::run_from`] then
    /// returns is not what comes behind it.
    #[must_use]
    pub fn without_end(self) -> Self {
        Self { is_end_read: false, ..self }
    }

    /// Of the layers that are gone through, the one whose output nobody reads.
    pub fn unread(&self, layers: &Range<usize>) -> Option<usize> {
        layers.clone().next_back().filter(|_| !self.is_end_read)
    }

    /// Lets the tap see each token at the router's first `ratio` of all experts too, in (0, 1], before it sees it at those that the
    /// model uses; what they make of it goes nowhere (`moe_calib_experts_ratio`, modelopt.md §2.3).
    #[must_use]
    pub fn widen_experts(self, ratio: f64) -> Self {
        Self { experts_ratio: Some(ratio), ..self }
    }

    fn model(&self) -> &Model {
        self.weights.model()
    }

    /// Sends samples through all layers in batches of `batch_size` at most, and gives the hidden states after the final norm,
    /// one `[tokens, hidden_size]` a batch; none where another rank has them.
    ///
    /// # Errors
    /// A weight cannot be read, the tap or `progress` refuses to go on, or another rank is gone.
    pub fn run(
        &self,
        samples: &Samples,
        batch_size: usize,
        tap: &mut dyn Tap<B>,
        progress: &mut dyn FnMut(Progress) -> Result<()>,
    ) -> Result<Vec<B::Tensor>> {
        let start = Start::at(self.stage.layers.clone());
        let batches = Batches::of(&self.stage, samples, batch_size);
        let hidden = self.run_from(start, batches, tap, progress)?;
        self.norm(&hidden)
    }

    /// The final norm of hidden states behind the last layer.
    ///
    /// # Errors
    /// The weight cannot be read.
    pub fn norm(&self, hidden: &[B::Tensor]) -> Result<Vec<B::Tensor>> {
        if hidden.is_empty() {
            return Ok(Vec::new());
        }
        let (backend, config) = (self.backend, &self.model().config);
        let norm = backend.adopt(self.weights.weight(self.model().module("model.norm")?)?)?;
        hidden.iter().map(|batch| backend.rms_norm(batch, &norm, config.norm_epsilon)).collect()
    }

    /// The same without the final norm, from where another attempt has come; what that left was cut in the same way.
    ///
    /// # Errors
    /// As [`Network::run`].
    pub fn run_from(
        &self,
        start: Start<B::Tensor>,
        batches: Batches<'_>,
        tap: &mut dyn Tap<B>,
        progress: &mut dyn FnMut(Progress) -> Result<()>,
    ) -> Result<Vec<B::Tensor>> {
        let (backend, config) = (self.backend, &self.model().config);
        let length = batches.samples.length;
        let tables = rotary::tables(backend, config, length)?;
        self.needs(batches, tap).admit(backend.free_memory()?)?;
        let pass = Pass {
            backend,
            config,
            tables: &tables,
            length,
            experts_ratio: self.experts_ratio,
            unread: self.unread(&start.layers),
        };
        // Those behind may need what this rank has no use for any more.
        let is_asked = start.states.is_none() || self.stage.comm.size() > 1;
        let is_embedding = is_asked && self.stage.is_first();
        let embedded = if is_embedding { self.embed(batches)? } else { Vec::new() };
        let streaming = match self.stage.comm.size() {
            1 => Streaming::LayerByLayer,
            _ => self.streaming,
        };
        let (order, over) = (streaming.order(&self.stage, &start, batches.groups()), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let supply = Supply::new(scope, (backend, self.weights), order, &over);
            let outbox = (!self.stage.is_last()).then(|| Outbox::open(scope, backend, &self.stage));
            let embedded = embedded.into_iter();
            let mut flow = Flow { pass, progress, embedded, batches, supply, outbox };
            let hidden = self.send(&mut flow, (streaming, start), tap)?;
            Ok(if self.stage.is_last() { hidden } else { Vec::new() })
        })
    }

    /// What a pass needs of the device's memory.
    fn needs(&self, batches: Batches<'_>, tap: &dyn Tap<B>) -> Needs {
        let Batches { samples, batch, .. } = batches;
        let load = Load {
            tokens: samples.ids.len(),
            batch: batch * samples.length,
            length: samples.length,
            moving: self.moving(batches),
            is_ahead: self.backend.brings_ahead(),
            demands: tap.demands(),
        };
        Needs::of(self.model(), &self.stage, load)
    }

    /// Bytes that a pass is planned with, but for what libraries have for themselves.
    #[cfg(test)]
    pub(crate) fn plan(&self, batches: Batches<'_>, tap: &dyn Tap<B>) -> u64 {
        self.needs(batches, tap).total() - super::memory::OVERHEAD
    }

    /// Batches that are there beside those that are kept: those of a group, and those on their way to the stage behind.
    fn moving(&self, batches: Batches<'_>) -> usize {
        if self.stage.comm.size() > 1 { batches.group + Outbox::<B>::ROOM } else { 0 }
    }

    /// Sends all batches through the stage and on; what comes behind it, where this rank keeps that.
    fn send(
        &self,
        flow: &mut Flow<'_, '_, B>,
        (streaming, start): (Streaming, Start<B::Tensor>),
        tap: &mut dyn Tap<B>,
    ) -> Result<Vec<B::Tensor>> {
        match streaming {
            Streaming::LayerByLayer => {
                let inputs = match start.states {
                    Some(states) => states,
                    None => self.inputs(flow, flow.batches.count())?,
                };
                let hidden = self.layer_by_layer(flow, (start.layers, inputs), tap)?;
                let hidden = self.hand_on(flow, hidden)?;
                flow.close()?;
                Ok(hidden)
            }
            Streaming::InGroups => {
                let hidden = self.in_groups(flow, start.done, tap)?;
                flow.close()?;
                for layer in self.stage.layers.clone() {
                    if !matches!(tap.turn(self.backend, layer)?, Turn::Next) {
                        return Err(Error::bug("a layer is to be repeated, and its inputs are gone"));
                    }
                }
                Ok(hidden)
            }
            Streaming::AheadThenLayerByLayer => {
                let layers = start.layers.clone();
                let inputs = self.ahead(flow, start, tap)?;
                flow.close()?;
                self.layer_by_layer(flow, (layers, inputs), tap)
            }
        }
    }

    /// The next so many batches before this stage's first layer.
    fn inputs(&self, flow: &mut Flow<'_, '_, B>, count: usize) -> Result<Vec<B::Tensor>> {
        match self.stage.is_first() {
            true => Ok(flow.embedded.by_ref().take(count).collect()),
            false => (0..count).map(|_| self.stage.receive(self.backend)).collect(),
        }
    }

    /// Sends all batches through one layer after the other, as often as the tap wants.
    fn layer_by_layer(
        &self,
        flow: &mut Flow<'_, '_, B>,
        (layers, mut hidden): (Range<usize>, Vec<B::Tensor>),
        tap: &mut dyn Tap<B>,
    ) -> Result<Vec<B::Tensor>> {
        let unread = flow.pass.unread;
        for layer in layers {
            let mut weights = flow.supply.next(layer)?;
            loop {
                let kept = tap.repeats(layer).then(|| hidden.clone());
                flow.pass.unread = if kept.is_some() { Some(layer) } else { unread };
                for (index, batch) in hidden.iter_mut().enumerate() {
                    self.step(flow, &weights, (index, batch), tap)?;
                }
                match (tap.turn(self.backend, layer)?, kept) {
                    (Turn::Next, None) => break,
                    (Turn::Again, Some(before)) => hidden = before,
                    (Turn::AgainWith(replaced), Some(before)) => {
                        hidden = before;
                        weights.replace(self.backend, replaced)?;
                    }
                    _ => return Err(Error::bug("a layer is not repeated as was told")),
                }
            }
            tap.passed(self.backend, layer, &hidden)?;
        }
        Ok(hidden)
    }

    /// Sends groups of batches through all layers of the stage, and on, but for those that are `done`; the last stage keeps
    /// them.
    fn in_groups(
        &self,
        flow: &mut Flow<'_, '_, B>,
        done: usize,
        tap: &mut dyn Tap<B>,
    ) -> Result<Vec<B::Tensor>> {
        let (group, count) = (flow.batches.group, flow.batches.count());
        let mut kept = Vec::new();
        flow.embedded.by_ref().take(done * group).for_each(drop);
        for (index, begin) in (0..count).step_by(group).enumerate().skip(done) {
            let inputs = self.inputs(flow, group.min(count - begin))?;
            let hidden = self.through(flow, (begin, inputs), tap)?;
            if self.stage.is_last() {
                tap.left(self.backend, index, &hidden)?;
            }
            kept.extend(self.hand_on(flow, hidden)?);
            if self.stage.comm.size() > 1 {
                tap.grouped(index + 1, true)?;
            }
        }
        Ok(kept)
    }

    /// Sends all batches through the stage and on, unseen, where the rank behind does not have them, and gives those back that
    /// the tap is to see.
    fn ahead(
        &self,
        flow: &mut Flow<'_, '_, B>,
        start: Start<B::Tensor>,
        tap: &mut dyn Tap<B>,
    ) -> Result<Vec<B::Tensor>> {
        let (group, count) = (flow.batches.group, flow.batches.count());
        let ratio = flow.pass.experts_ratio.take();
        let mut arrived = start.arrived.into_iter();
        let mut kept = Vec::with_capacity(count);
        for (index, begin) in (0..count).step_by(group).enumerate() {
            let inputs = match arrived.next() {
                Some(states) => states,
                None => {
                    let states = self.inputs(flow, group.min(count - begin))?;
                    if !self.stage.is_first() {
                        tap.arrived(self.backend, index, &states)?;
                    }
                    states
                }
            };
            if start.states.is_none() {
                kept.extend(inputs.iter().cloned());
            }
            if !self.stage.is_last() && index >= start.passed_on {
                let hidden = self.through(flow, (begin, inputs), &mut Unseen)?;
                self.hand_on(flow, hidden)?;
            }
            tap.grouped(index + 1, false)?;
        }
        flow.pass.experts_ratio = ratio;
        Ok(start.states.unwrap_or(kept))
    }

    /// Sends some batches, the first of which has a number, through all layers of the stage.
    fn through(
        &self,
        flow: &mut Flow<'_, '_, B>,
        (begin, mut hidden): (usize, Vec<B::Tensor>),
        tap: &mut dyn Tap<B>,
    ) -> Result<Vec<B::Tensor>> {
        for layer in self.stage.layers.clone() {
            let weights = flow.supply.next(layer)?;
            for (index, batch) in hidden.iter_mut().enumerate() {
                self.step(flow, &weights, (begin + index, batch), tap)?;
            }
        }
        Ok(hidden)
    }

    fn step(
        &self,
        flow: &mut Flow<'_, '_, B>,
        weights: &LayerWeights<B::Tensor>,
        (index, batch): (usize, &mut B::Tensor),
        tap: &mut dyn Tap<B>,
    ) -> Result<()> {
        flow.pass.layer(weights, batch, tap)?;
        tap.behind(self.backend, weights.layer, index, batch)?;
        self.stage.comm.check()?;
        (flow.progress)(Progress { layer: weights.layer + 1, tokens: self.backend.shape(batch)[0] })
    }

    /// Passes batches on to the next stage; the last one keeps them.
    fn hand_on(&self, flow: &mut Flow<'_, '_, B>, hidden: Vec<B::Tensor>) -> Result<Vec<B::Tensor>> {
        let Some(outbox) = &flow.outbox else { return Ok(hidden) };
        for batch in hidden {
            if !outbox.send(self.backend, batch)? {
                flow.close()?;
                return Err(Error::bug("hidden states are not sent any more"));
            }
        }
        Ok(Vec::new())
    }

    /// The output head, `[vocabulary, hidden_size]`, and its module index.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn head(&self) -> Result<(usize, B::Tensor)> {
        let module = self.model().module("lm_head")?;
        Ok((module, self.backend.adopt(self.weights.weight(module)?)?))
    }

    fn embed(&self, batches: Batches<'_>) -> Result<Vec<B::Tensor>> {
        let table = self.backend.adopt(self.weights.weight(self.model().module("model.embed_tokens")?)?)?;
        batches.ids().map(|ids| self.backend.gather(&table, ids)).collect()
    }
}
