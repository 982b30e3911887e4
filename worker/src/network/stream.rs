//! Layer-major streaming: each layer is brought in once and serves every batch, so memory is activations and one layer.

use std::collections::BTreeMap;

use qlaunch_shared::model::Model;
use qlaunch_shared::{Error, Result};

use super::decoder::{Pass, Tap, Turn};
use super::layer::LayerWeights;
use super::rotary;
use super::weights::Weights;
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
    experts_ratio: Option<f64>,
}

impl<'a, B: Backend> Network<'a, B> {
    /// Runs a model's weights on a backend.
    pub fn new(backend: &'a B, weights: &'a dyn Weights) -> Self {
        Self { backend, weights, experts_ratio: None }
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
        let pass = Pass {
            backend,
            config,
            tables: &tables,
            length: samples.length,
            experts_ratio: self.experts_ratio,
        };
        let mut hidden = self.embed(samples, batch_size)?;
        for layer in 0..config.layers {
            let mut weights = LayerWeights::load(backend, self.weights, layer)?;
            loop {
                let kept = tap.may_repeat(layer).then(|| hidden.clone());
                for batch in &mut hidden {
                    pass.layer(&weights, batch, tap)?;
                    progress(Progress { layer: layer + 1, tokens: backend.shape(batch)[0] })?;
                }
                let replaced = match tap.turn(backend, layer)? {
                    Turn::Next => break,
                    Turn::Again => BTreeMap::new(),
                    Turn::AgainWith(replaced) => replaced,
                };
                hidden =
                    kept.ok_or_else(|| Error::bug("a layer is to be repeated, and its inputs are gone"))?;
                weights.replace(backend, replaced)?;
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
