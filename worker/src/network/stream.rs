//! Layer-major streaming: each layer is brought in once and serves every batch, so memory is activations and one layer.

use qlaunch_shared::Result;
use qlaunch_shared::model::Model;

use super::decoder::{Pass, Tap};
use super::rotary;
use super::weights::{LayerWeights, Weights};
use crate::ops::Backend;
use crate::tokens::Samples;

/// How far a pass has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Decoder layer at work, from 1.
    pub layer: usize,
    /// Tokens that this step sent through the layer.
    pub tokens: usize,
}

/// A model on a backend.
pub struct Network<'a, B: Backend> {
    backend: &'a B,
    weights: &'a dyn Weights,
}

impl<'a, B: Backend> Network<'a, B> {
    /// Runs a model's weights on a backend.
    pub fn new(backend: &'a B, weights: &'a dyn Weights) -> Self {
        Self { backend, weights }
    }

    fn model(&self) -> &Model {
        self.weights.model()
    }

    /// Sends samples through all layers in batches of `batch_size`, and gives the hidden states after the final norm,
    /// one `[tokens, hidden_size]` a batch.
    ///
    /// # Errors
    /// A weight cannot be read, or the tap or `progress` refuses to go on.
    pub fn run(
        &self,
        samples: &Samples,
        batch_size: usize,
        tap: &mut dyn Tap<B>,
        progress: &mut dyn FnMut(Progress) -> Result<()>,
    ) -> Result<Vec<B::Tensor>> {
        let (backend, config) = (self.backend, &self.model().config);
        let tables = rotary::tables(backend, config, samples.length)?;
        let pass = Pass { backend, config, tables: &tables, length: samples.length };
        let mut hidden = self.embed(samples, batch_size)?;
        for layer in 0..config.layers {
            let weights = LayerWeights::load(backend, self.weights, layer)?;
            for batch in &mut hidden {
                pass.layer(&weights, batch, tap)?;
                progress(Progress { layer: layer + 1, tokens: backend.shape(batch)[0] })?;
            }
        }
        let norm = backend.adopt(self.weights.weight(self.model().module("model.norm")?)?)?;
        hidden.iter().map(|batch| backend.rms_norm(batch, &norm, config.norm_epsilon)).collect()
    }

    /// The output head, `[vocabulary, hidden_size]`, and its module index.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn head(&self) -> Result<(usize, B::Tensor)> {
        let module = self.model().module("lm_head")?;
        Ok((module, self.backend.adopt(self.weights.weight(module)?)?))
    }

    fn embed(&self, samples: &Samples, batch_size: usize) -> Result<Vec<B::Tensor>> {
        let table = self.backend.adopt(self.weights.weight(self.model().module("model.embed_tokens")?)?)?;
        samples.batches(batch_size).map(|ids| self.backend.gather(&table, ids)).collect()
    }
}
