//! The weights of a checkpoint as an engine sees them: what is declared tells how they are stored.

use qlaunch_shared::checkpoint::{Declared, TensorEntry};
use qlaunch_shared::model::{Model, Module, ModuleRole};
use qlaunch_shared::numerics::Format;
use qlaunch_shared::{Error, Result};

use crate::network::Weights;
use crate::quantize::decode_weight;
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
        let [rows, columns] = shape;
        let dtype = self.model.config.dtype;
        for planned in format.weight_parts(rows, columns, dtype) {
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
        let parts =
            |suffix: &str| self.files.tensor(&format!("{}.{suffix}", part.name)).map(|tensor| tensor.bytes);
        decode_weight(format, shape, &parts, dtype)
            .map_err(|e| e.at(&self.model.folder).key(format!("{}.weight", part.name)).hint(BROKEN))
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
        self.files.release(&entry.name);
        Ok(tensor)
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
