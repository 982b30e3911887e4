//! One decoder layer over one batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use qlaunch_shared::model::ModelConfig;
use qlaunch_shared::{Error, Result};

use super::layer::{FeedForward, GatedMlp, LayerWeights, Projection};
use super::memory::Demands;
use crate::ops::{AttentionShape, Backend, Linear, RotaryTables};
use crate::tensor::host::HostTensor;

/// Which half of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheSide {
    /// Keys, after rotation.
    Key,
    /// Values.
    Value,
}

/// What each reader of an activation is given in its place; `None` is the activation itself.
pub type Inputs<T> = Vec<Option<Arc<T>>>;

/// Somebody who listens at linear inputs and caches, and may change what goes on from there.
pub trait Tap<B: Backend> {
    /// Sees the activation `[tokens, features]` that the linears `readers` (module indices) are about to read.
    ///
    /// # Errors
    /// What was seen cannot be used.
    fn input(&mut self, backend: &B, readers: &[usize], x: &B::Tensor) -> Result<Inputs<B::Tensor>>;

    /// Sees, and may change, what the linear `module` made of the activation `x` that [`Tap::input`] was shown.
    ///
    /// # Errors
    /// What was seen cannot be used.
    fn output(&mut self, _backend: &B, _module: usize, _x: &B::Tensor, _y: &mut B::Tensor) -> Result<()> {
        Ok(())
    }

    /// Sees, and may change, keys or values `[tokens, kv_heads · head_dim]` on their way into the cache.
    ///
    /// # Errors
    /// What was seen cannot be used.
    fn cache(&mut self, backend: &B, layer: usize, side: CacheSide, x: &mut B::Tensor) -> Result<()>;

    /// Sees how many tokens of a batch each expert of a layer is about to get. Inputs of experts without any are not seen.
    ///
    /// # Errors
    /// What was seen cannot be used.
    fn routed(&mut self, _layer: usize, _tokens: &[u64]) -> Result<()> {
        Ok(())
    }

    /// Sees the same of the additional look at more experts that [`super::Network::widen_experts`] asks for: their inputs
    /// are seen, and then, after [`Tap::routed`], those of the experts that are really used, again.
    ///
    /// # Errors
    /// What was seen cannot be used.
    fn widened(&mut self, _layer: usize, _tokens: &[u64]) -> Result<()> {
        Ok(())
    }

    /// What it has the device do: memory is planned for it.
    fn demands(&self) -> Demands {
        Demands::default()
    }

    /// Whether the batches that now go through a layer will go through it again: their inputs are kept then, and what comes
    /// behind the layer this time is not computed.
    fn repeats(&self, _layer: usize) -> bool {
        false
    }

    /// Decides what comes after all batches went through a layer.
    ///
    /// # Errors
    /// What was seen cannot be used.
    fn turn(&mut self, _backend: &B, _layer: usize) -> Result<Turn> {
        Ok(Turn::Next)
    }

    /// Sees a group of batches as it comes from another rank, where several ranks send groups ahead.
    ///
    /// # Errors
    /// They cannot be kept.
    fn arrived(&mut self, _backend: &B, _group: usize, _states: &[B::Tensor]) -> Result<()> {
        Ok(())
    }

    /// Sees a group of batches behind the last layer of several ranks, where batches go through them in groups.
    ///
    /// # Errors
    /// They cannot be kept.
    fn left(&mut self, _backend: &B, _group: usize, _states: &[B::Tensor]) -> Result<()> {
        Ok(())
    }

    /// Learns that so many groups went through the layers of one of several ranks; with `seen`, past [`Tap::input`].
    ///
    /// # Errors
    /// What was seen cannot be kept.
    fn grouped(&mut self, _groups: usize, _seen: bool) -> Result<()> {
        Ok(())
    }

    /// Sees a batch of hidden states behind a layer, `[tokens, hidden_size]`, the `batch`-th of all, each time it has gone through.
    ///
    /// # Errors
    /// They are nothing to go on with.
    fn behind(&mut self, _backend: &B, _layer: usize, _batch: usize, _hidden: &B::Tensor) -> Result<()> {
        Ok(())
    }

    /// Sees the hidden states behind a layer, one `[tokens, hidden_size]` a batch, after the last turn of it; not where
    /// batches go through several layers in groups.
    ///
    /// # Errors
    /// They cannot be kept.
    fn passed(&mut self, _backend: &B, _layer: usize, _hidden: &[B::Tensor]) -> Result<()> {
        Ok(())
    }
}

/// What comes after all batches went through a layer.
#[derive(Debug)]
pub enum Turn {
    /// The next layer.
    Next,
    /// The same layer with the same inputs again.
    Again,
    /// The same again with these weights, by module index, in place of the layer's own.
    AgainWith(BTreeMap<usize, HostTensor>),
}

/// What all layers of a pass have in common.
pub(super) struct Pass<'a, B: Backend> {
    pub(super) backend: &'a B,
    pub(super) config: &'a ModelConfig,
    pub(super) tables: &'a RotaryTables<B::Tensor>,
    /// Tokens of each sequence.
    pub(super) length: usize,
    /// Share of the experts that the tap is to see each token at, where it is to see more than the model uses.
    pub(super) experts_ratio: Option<f64>,
    /// The layer whose output nobody reads: it is computed as far as linears read anything.
    pub(super) unread: Option<usize>,
}

impl<B: Backend> Pass<'_, B> {
    /// Sends `hidden` `[tokens, hidden_size]` through a layer, in place.
    pub(super) fn layer(
        &self,
        weights: &LayerWeights<B::Tensor>,
        hidden: &mut B::Tensor,
        tap: &mut dyn Tap<B>,
    ) -> Result<()> {
        let attended = self.attention(weights, hidden, tap)?;
        self.backend.add(hidden, &attended)?;
        match self.feed_forward(weights, hidden, tap)? {
            Some(projected) => self.backend.add(hidden, &projected),
            None => Ok(()),
        }
    }

    fn attention(
        &self,
        weights: &LayerWeights<B::Tensor>,
        hidden: &B::Tensor,
        tap: &mut dyn Tap<B>,
    ) -> Result<B::Tensor> {
        let (backend, config) = (self.backend, self.config);
        let x = backend.rms_norm(hidden, &weights.input_norm, config.norm_epsilon)?;
        let [mut q, mut k, mut v] = self.project([&weights.query, &weights.key, &weights.value], &x, tap)?;
        drop(x);
        if let Some((query_norm, key_norm)) = &weights.head_norms {
            q = backend.rms_norm(&q, query_norm, config.norm_epsilon)?;
            k = backend.rms_norm(&k, key_norm, config.norm_epsilon)?;
        }
        let batch = backend.shape(&q)[0] / self.length;
        let positions: Vec<u32> = (0..batch).flat_map(|_| 0..self.length as u32).collect();
        backend.rotate(&mut q, config.head_dim, self.tables, &positions)?;
        backend.rotate(&mut k, config.head_dim, self.tables, &positions)?;
        tap.cache(backend, weights.layer, CacheSide::Key, &mut k)?;
        tap.cache(backend, weights.layer, CacheSide::Value, &mut v)?;
        let shape = AttentionShape {
            batch,
            seq: self.length,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            scale: 1.0 / (config.head_dim as f32).sqrt(),
            window: config.windows[weights.layer],
        };
        let mixed = backend.attention(&q, &k, &v, &shape)?;
        let [attended] = self.project([&weights.output], &mixed, tap)?;
        Ok(attended)
    }

    /// What comes after attention; none where nobody reads it.
    fn feed_forward(
        &self,
        weights: &LayerWeights<B::Tensor>,
        hidden: &B::Tensor,
        tap: &mut dyn Tap<B>,
    ) -> Result<Option<B::Tensor>> {
        let x = self.backend.rms_norm(hidden, &weights.post_norm, self.config.norm_epsilon)?;
        match (&weights.feed_forward, &self.config.experts) {
            (FeedForward::Mixture(mixture), Some(experts)) => {
                self.mixture(mixture, (weights.layer, experts), &x, tap)
            }
            (FeedForward::Dense(mlp), _) if self.unread == Some(weights.layer) => {
                self.show_gated(mlp, &x, tap)?;
                Ok(None)
            }
            (FeedForward::Dense(mlp), _) => self.gated(mlp, &x, tap).map(Some),
            (FeedForward::Mixture(_), None) => {
                Err(Error::bug("a mixture of experts that the config knows nothing of"))
            }
        }
    }

    /// An MLP, or one expert.
    pub(super) fn gated(
        &self,
        mlp: &GatedMlp<B::Tensor>,
        x: &B::Tensor,
        tap: &mut dyn Tap<B>,
    ) -> Result<B::Tensor> {
        let inner = self.inner(mlp, x, tap)?;
        let [projected] = self.project([&mlp.down], &inner, tap)?;
        Ok(projected)
    }

    /// Shows the inputs of an MLP's linears to the tap, and computes nothing that nobody sees.
    pub(super) fn show_gated(
        &self,
        mlp: &GatedMlp<B::Tensor>,
        x: &B::Tensor,
        tap: &mut dyn Tap<B>,
    ) -> Result<()> {
        let inner = self.inner(mlp, x, tap)?;
        tap.input(self.backend, &[mlp.down.module], &inner).map(drop)
    }

    /// What an MLP's last linear reads.
    fn inner(&self, mlp: &GatedMlp<B::Tensor>, x: &B::Tensor, tap: &mut dyn Tap<B>) -> Result<B::Tensor> {
        let [gate, up] = self.project([&mlp.gate, &mlp.up], x, tap)?;
        self.backend.activate(&gate, &up, self.config.activation)
    }

    /// Linears that read the same activation.
    pub(super) fn project<const N: usize>(
        &self,
        readers: [&Projection<B::Tensor>; N],
        x: &B::Tensor,
        tap: &mut dyn Tap<B>,
    ) -> Result<[B::Tensor; N]> {
        let inputs = tap.input(self.backend, &readers.map(|reader| reader.module), x)?;
        let outputs: Vec<B::Tensor> = readers
            .iter()
            .zip(&inputs)
            .map(|(reader, input)| {
                let layer = Linear { weight: &reader.weight, bias: reader.bias.as_ref() };
                let mut y = self.backend.linear(input.as_deref().unwrap_or(x), layer)?;
                tap.output(self.backend, reader.module, x, &mut y)?;
                Ok(y)
            })
            .collect::<Result<_>>()?;
        outputs.try_into().map_err(|_| Error::bug("a tap answered for another number of linears"))
    }
}
