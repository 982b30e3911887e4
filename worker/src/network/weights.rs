//! Where the forward pass takes its weights from.

use qlaunch_shared::model::{Model, Module};
use qlaunch_shared::{Error, Result};

use crate::ops::Stored;
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

    /// The weight of a module as it is stored, where it is codes that a device may make the values of.
    ///
    /// # Errors
    /// It is missing, or cannot be read.
    fn stored(&self, _module: usize) -> Result<Option<Stored<'_>>> {
        Ok(None)
    }

    /// What [`Weights::stored`] has shown is not read any more.
    fn release(&self, _module: usize) {}

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
        self.files.hold(name).map_err(|e| e.at(&self.model.folder).key(name))
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
