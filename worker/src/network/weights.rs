//! Where the forward pass takes its weights from: one layer at a time, dropped when the layer is done.

use qlaunch_shared::model::{Model, Module};
use qlaunch_shared::{Error, Result};

use crate::ops::Backend;
use crate::tensor::MappedCheckpoint;
use crate::tensor::host::{HostTensor, TensorView};

/// A source of weights in the model's own type.
pub trait Weights: Sync {
    /// The model that the weights belong to.
    fn model(&self) -> &Model;

    /// The weight of a module.
    ///
    /// # Errors
    /// It is missing, or cannot be read or decoded.
    fn weight(&self, module: usize) -> Result<HostTensor>;

    /// The bias of a module, where it has one.
    ///
    /// # Errors
    /// It cannot be read.
    fn bias(&self, module: usize) -> Result<Option<HostTensor>>;
}

/// Weights of an unquantized model, straight from its files.
pub struct SourceWeights<'a> {
    model: &'a Model,
    files: &'a MappedCheckpoint,
}

impl<'a> SourceWeights<'a> {
    /// Reads `model`'s weights from its mapped files.
    pub fn new(model: &'a Model, files: &'a MappedCheckpoint) -> Self {
        Self { model, files }
    }

    /// Shows the weight of a module where it lies in its file; it is copied only if it is not aligned there.
    ///
    /// # Errors
    /// It is missing, or `look` fails.
    pub fn look<T>(&self, module: usize, look: impl FnOnce(TensorView<'_>) -> Result<T>) -> Result<T> {
        let name = self.name(module)?;
        let mapped = self.files.tensor(name)?;
        let seen = match TensorView::from_bytes(mapped.dtype, mapped.shape, mapped.bytes) {
            Ok(view) => look(view),
            Err(_) => look(HostTensor::from_bytes(mapped.dtype, mapped.shape, mapped.bytes)?.view()),
        };
        seen.map_err(|e| e.at(&self.model.folder).key(name))
    }

    /// Gives the pages of a module's weight back to the system.
    pub fn release(&self, module: usize) {
        if let Ok(name) = self.name(module) {
            self.files.release(name);
        }
    }

    fn name(&self, module: usize) -> Result<&str> {
        let part = &self.model.modules[module];
        self.model.weight(part).map(|tensor| tensor.name.as_str()).ok_or_else(|| missing(self.model, part))
    }

    fn read(&self, name: &str) -> Result<HostTensor> {
        let mapped = self.files.tensor(name)?;
        let tensor = HostTensor::from_bytes(mapped.dtype, mapped.shape, mapped.bytes);
        self.files.release(name);
        tensor.map_err(|e| e.at(&self.model.folder).key(name))
    }
}

impl Weights for SourceWeights<'_> {
    fn model(&self) -> &Model {
        self.model
    }

    fn weight(&self, module: usize) -> Result<HostTensor> {
        self.read(self.name(module)?)
    }

    fn bias(&self, module: usize) -> Result<Option<HostTensor>> {
        self.model.bias(&self.model.modules[module]).map(|tensor| self.read(&tensor.name)).transpose()
    }
}

fn missing(model: &Model, part: &Module) -> Error {
    let remedy = "the checkpoint is incomplete: fetch it again";
    Error::input("the weight is missing").at(&model.folder).key(part.name.as_str()).hint(remedy)
}

/// One linear on the device.
pub(super) struct Projection<T> {
    /// Index into the model's modules.
    pub(super) module: usize,
    pub(super) weight: T,
    pub(super) bias: Option<T>,
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
    pub(super) gate: Projection<T>,
    pub(super) up: Projection<T>,
    pub(super) down: Projection<T>,
}

impl<T> LayerWeights<T> {
    /// Brings one layer to the device.
    pub(super) fn load<B: Backend<Tensor = T>>(
        backend: &B,
        weights: &dyn Weights,
        layer: usize,
    ) -> Result<Self> {
        let model = weights.model();
        let find = |part: &str| model.module(&format!("model.layers.{layer}.{part}"));
        let projection = |part: &str| -> Result<Projection<T>> {
            let module = find(part)?;
            let weight = backend.adopt(weights.weight(module)?)?;
            let bias = weights.bias(module)?.map(|bias| backend.adopt(bias)).transpose()?;
            Ok(Projection { module, weight, bias })
        };
        let norm = |part: &str| -> Result<T> { backend.adopt(weights.weight(find(part)?)?) };
        let head_norms = match model.config.family.has_head_norms() {
            true => Some((norm("self_attn.q_norm")?, norm("self_attn.k_norm")?)),
            false => None,
        };
        Ok(Self {
            layer,
            input_norm: norm("input_layernorm")?,
            query: projection("self_attn.q_proj")?,
            key: projection("self_attn.k_proj")?,
            value: projection("self_attn.v_proj")?,
            output: projection("self_attn.o_proj")?,
            head_norms,
            post_norm: norm("post_attention_layernorm")?,
            gate: projection("mlp.gate_proj")?,
            up: projection("mlp.up_proj")?,
            down: projection("mlp.down_proj")?,
        })
    }
}
