//! The weights of one decoder layer on the device; they are brought there together and dropped when the layer is done.

use std::collections::BTreeMap;

use qlaunch_shared::model::{self, Model, Part};
use qlaunch_shared::{Error, Result};

use super::weights::Weights;
use crate::ops::Backend;
use crate::tensor::host::HostTensor;

/// One linear on the device.
pub(super) struct Projection<T> {
    /// Index into the model's modules.
    pub(super) module: usize,
    pub(super) weight: T,
    pub(super) bias: Option<T>,
}

/// An MLP, or one expert.
pub(super) struct GatedMlp<T> {
    pub(super) gate: Projection<T>,
    pub(super) up: Projection<T>,
    pub(super) down: Projection<T>,
}

/// Experts, and what chooses between them.
pub(super) struct Mixture<T> {
    pub(super) router: Projection<T>,
    pub(super) experts: Vec<GatedMlp<T>>,
}

/// What comes after attention.
pub(super) enum FeedForward<T> {
    /// One MLP for all tokens.
    Dense(GatedMlp<T>),
    /// Some of several for each token.
    Mixture(Mixture<T>),
}

/// The weights of one decoder layer on the device.
pub(super) struct LayerWeights<T> {
    pub(super) layer: usize,
    pub(super) input_norm: T,
    pub(super) query: Projection<T>,
    pub(super) key: Projection<T>,
    pub(super) value: Projection<T>,
    pub(super) output: Projection<T>,
    /// Norms of query and key heads, where the family has them.
    pub(super) head_norms: Option<(T, T)>,
    pub(super) post_norm: T,
    pub(super) feed_forward: FeedForward<T>,
}

impl<T> LayerWeights<T> {
    /// Brings one layer to the device, tensor by tensor.
    pub(super) fn load(weights: &dyn Weights, layer: usize, bring: &mut dyn Bring<T>) -> Result<Self> {
        use model::Projection::{Key, Output, Query, Value};
        let mut source = Source::new(weights, layer, bring);
        let head_norms = match source.model.config.family.has_head_norms() {
            true => Some((source.norm("self_attn.q_norm")?, source.norm("self_attn.k_norm")?)),
            false => None,
        };
        Ok(Self {
            layer,
            input_norm: source.norm("input_layernorm")?,
            query: source.projection(Part::Attention, Some(Query))?,
            key: source.projection(Part::Attention, Some(Key))?,
            value: source.projection(Part::Attention, Some(Value))?,
            output: source.projection(Part::Attention, Some(Output))?,
            head_norms,
            post_norm: source.norm("post_attention_layernorm")?,
            feed_forward: source.feed_forward()?,
        })
    }

    /// Puts other weights in the place of some linears', by module index.
    pub(super) fn replace<B: Backend<Tensor = T>>(
        &mut self,
        backend: &B,
        mut replaced: BTreeMap<usize, HostTensor>,
    ) -> Result<()> {
        let attention = [&mut self.query, &mut self.key, &mut self.value, &mut self.output];
        let after = match &mut self.feed_forward {
            FeedForward::Dense(mlp) => mlp.projections().collect::<Vec<_>>(),
            FeedForward::Mixture(mixture) => {
                let experts = mixture.experts.iter_mut().flat_map(GatedMlp::projections);
                std::iter::once(&mut mixture.router).chain(experts).collect()
            }
        };
        for projection in attention.into_iter().chain(after) {
            if let Some(weight) = replaced.remove(&projection.module) {
                projection.weight = backend.adopt(weight)?;
            }
        }
        Ok(())
    }
}

impl<T> GatedMlp<T> {
    fn projections(&mut self) -> impl Iterator<Item = &mut Projection<T>> {
        [&mut self.gate, &mut self.up, &mut self.down].into_iter()
    }
}

/// What brings weights to the device.
pub(super) trait Bring<T> {
    /// Brings a tensor.
    fn tensor(&mut self, tensor: HostTensor) -> Result<T>;

    /// Brings the weight of a module.
    fn weight(&mut self, weights: &dyn Weights, module: usize) -> Result<T> {
        self.tensor(weights.weight(module)?)
    }
}

/// Where one layer's weights come from, and what brings them to the device.
struct Source<'a, T> {
    bring: &'a mut dyn Bring<T>,
    weights: &'a dyn Weights,
    model: &'a Model,
    layer: usize,
    /// The layer's linears, by what they are.
    linears: BTreeMap<(Part, Option<model::Projection>), usize>,
}

impl<'a, T> Source<'a, T> {
    fn new(weights: &'a dyn Weights, layer: usize, bring: &'a mut dyn Bring<T>) -> Self {
        let model = weights.model();
        let own = model.modules.iter().enumerate().filter(|(_, part)| part.layer == Some(layer));
        let linears = own.filter(|(_, part)| part.is_linear());
        let linears = linears.map(|(module, part)| ((part.part, part.projection), module)).collect();
        Self { bring, weights, model, layer, linears }
    }

    fn projection(&mut self, part: Part, projection: Option<model::Projection>) -> Result<Projection<T>> {
        let module = *self
            .linears
            .get(&(part, projection))
            .ok_or_else(|| Error::bug(format!("layer {} lacks {projection:?} of {part:?}", self.layer)))?;
        let weight = self.bring.weight(self.weights, module)?;
        let bias = self.weights.bias(module)?.map(|bias| self.bring.tensor(bias)).transpose()?;
        Ok(Projection { module, weight, bias })
    }

    fn norm(&mut self, name: &str) -> Result<T> {
        let module = self.model.module(&format!("model.layers.{}.{name}", self.layer))?;
        self.bring.weight(self.weights, module)
    }

    fn gated_mlp(&mut self, part: Part) -> Result<GatedMlp<T>> {
        use model::Projection::{Down, Gate, Up};
        Ok(GatedMlp {
            gate: self.projection(part, Some(Gate))?,
            up: self.projection(part, Some(Up))?,
            down: self.projection(part, Some(Down))?,
        })
    }

    fn feed_forward(&mut self) -> Result<FeedForward<T>> {
        let Some(experts) = self.model.config.experts_of(self.layer) else {
            return self.gated_mlp(Part::Mlp).map(FeedForward::Dense);
        };
        let router = self.projection(Part::Router, None)?;
        let experts = (0..experts.count as u32).map(|expert| self.gated_mlp(Part::Expert(expert)));
        Ok(FeedForward::Mixture(Mixture { router, experts: experts.collect::<Result<_>>()? }))
    }
}
