//! The weights of a checkpoint as an engine sees them: what is declared tells how they are stored.

use qlaunch_shared::checkpoint::{Declared, TensorEntry};
use qlaunch_shared::model::{Model, Module, ModuleRole};
use qlaunch_shared::numerics::Format;
use qlaunch_shared::{Error, Result};

use crate::network::Weights;
use crate::ops::Stored;
use crate::quantize::{decode_weight, stored_weight};
use crate::tensor::MappedCheckpoint;
use crate::tensor::host::HostTensor;

pub(super) const BROKEN: &str =
    "the checkpoint is broken, or not in ModelOpt's layout: make it again with `qlaunch quantize`";

/// Weights of a quantized or unquantized checkpoint, decoded to the model's type.
pub struct CheckpointWeights<'a> {
    model: &'a Model,
    files: &'a MappedCheckpoint,
    declared: Option<Declared>,
}

impl<'a> CheckpointWeights<'a> {
    /// Reads `model`'s weights from its mapped files.
    ///
    /// # Errors
    /// The model declares a quantization that nothing here decodes.
    pub fn open(model: &'a Model, files: &'a MappedCheckpoint) -> Result<Self> {
        let declared = Declared::open(&model.folder, &model.json)?;
        Ok(Self { model, files, declared })
    }

    /// The format that a linear's weight is declared to be stored in.
    fn format(&self, part: &Module) -> Option<Format> {
        let is_linear = matches!(part.role, ModuleRole::Linear { .. });
        let declared = self.declared.as_ref().filter(|_| is_linear && !self.model.is_tied_head(part))?;
        declared.algorithm(&part.name).map(|algorithm| algorithm.weight)
    }

    fn decode(&self, part: &Module, shape: [usize; 2], format: Format) -> Result<HostTensor> {
        self.check(part, shape, format)?;
        decode_weight(format, shape, &|suffix| self.part(part, suffix), self.model.config.dtype)
            .map_err(|error| self.broken(part, error))
    }

    /// The bytes of one of the tensors that a weight is stored in.
    fn part(&self, part: &Module, suffix: &str) -> Result<&'a [u8]> {
        self.files.tensor(&format!("{}.{suffix}", part.name)).map(|tensor| tensor.bytes)
    }

    fn broken(&self, part: &Module, error: Error) -> Error {
        error.at(&self.model.folder).key(format!("{}.weight", part.name)).hint(BROKEN)
    }

    /// Fails unless a weight's tensors are those of its format.
    fn check(&self, part: &Module, [rows, columns]: [usize; 2], format: Format) -> Result<()> {
        for planned in format.weight_parts(rows, columns, self.model.config.dtype) {
            let name = format!("{}.{}", part.name, planned.suffix);
            let stored = self.files.tensor(&name)?;
            // The state of an NF4 weight is JSON of any length; shapes with the same elements are as good.
            let is_text = planned.suffix.contains("quant_state");
            let elements: usize = planned.shape.iter().product();
            let fits = is_text || stored.shape.iter().product::<usize>() == elements;
            if stored.dtype != planned.dtype || !fits {
                let found = format!(
                    "{} {:?} is stored, but {format} has {} {:?}",
                    stored.dtype, stored.shape, planned.dtype, planned.shape
                );
                return Err(Error::input(found).at(&self.model.folder).key(name).hint(BROKEN));
            }
        }
        Ok(())
    }

    /// A weight that is stored in a type that models compute in.
    fn plain(&self, part: &Module, entry: &TensorEntry, expected: &[usize]) -> Result<HostTensor> {
        if !entry.dtype.is_model_dtype() {
            let found = format!("{} weights are stored, and nothing of it is declared", entry.dtype);
            return Err(wrong(found, self.model, &part.name));
        }
        if entry.shape != expected {
            let found = format!("wrong shape {:?}: the config says {expected:?}", entry.shape);
            return Err(wrong(found, self.model, &part.name));
        }
        let mapped = self.files.tensor(&entry.name)?;
        let stored = HostTensor::from_bytes(mapped.dtype, mapped.shape, mapped.bytes)?;
        if mapped.dtype == self.model.config.dtype {
            return Ok(stored);
        }
        stored.view().cast(self.model.config.dtype)
    }
}

fn wrong(message: String, model: &Model, owner: &str) -> Error {
    Error::input(message).at(&model.folder).key(format!("{owner}.weight")).hint(BROKEN)
}

impl Weights for CheckpointWeights<'_> {
    fn model(&self) -> &Model {
        self.model
    }

    fn weight(&self, module: usize) -> Result<HostTensor> {
        let part = &self.model.modules[module];
        let entry = self.model.weight(part).ok_or_else(|| {
            Error::input("the weight is missing").at(&self.model.folder).key(part.name.as_str()).hint(BROKEN)
        })?;
        let expected = match part.role {
            ModuleRole::Linear { rows, columns, .. } | ModuleRole::Embedding { rows, columns } => {
                vec![rows, columns]
            }
            ModuleRole::Norm { width } => vec![width],
            ModuleRole::Attention => Vec::new(),
        };
        let tensor = match (self.format(part), &expected[..]) {
            (Some(format), &[rows, columns]) => self.decode(part, [rows, columns], format)?,
            _ => self.plain(part, entry, &expected)?,
        };
        self.release(module);
        Ok(tensor)
    }

    fn stored(&self, module: usize) -> Result<Option<Stored<'_>>> {
        let part = &self.model.modules[module];
        let (Some(format), ModuleRole::Linear { rows, columns, .. }) = (self.format(part), part.role) else {
            return Ok(None);
        };
        let shape = [rows, columns];
        self.check(part, shape, format)?;
        stored_weight(format, shape, &|suffix| self.part(part, suffix), self.model.config.dtype)
            .map_err(|error| self.broken(part, error))
    }

    fn release(&self, module: usize) {
        if let Some(entry) = self.model.weight(&self.model.modules[module]) {
            self.files.release(&entry.name);
        }
    }

    fn bias(&self, module: usize) -> Result<Option<HostTensor>> {
        let Some(entry) = self.model.bias(&self.model.modules[module]) else { return Ok(None) };
        let mapped = self.files.tensor(&entry.name)?;
        let bias = HostTensor::from_bytes(mapped.dtype, mapped.shape, mapped.bytes)?;
        if mapped.dtype == self.model.config.dtype {
            return Ok(Some(bias));
        }
        bias.view().cast(self.model.config.dtype).map(Some)
    }
}
