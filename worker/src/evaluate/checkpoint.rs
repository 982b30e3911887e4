//! A checkpoint as an engine sees it: stored weights decoded, stored scales for activations and caches.

use std::collections::BTreeMap;

use half::{bf16, f16};
use qlaunch_shared::checkpoint::DType;
use qlaunch_shared::model::{Model, ModuleRole};
use qlaunch_shared::numerics::Format;
use qlaunch_shared::{Error, Result};

use crate::network::{CacheSide, Weights};
use crate::ops::Backend;
use crate::quantize::codec::{fp8, nvfp4};
use crate::tensor::MappedCheckpoint;
use crate::tensor::dtype::Element;
use crate::tensor::host::{HostTensor, StoredElement};

const BROKEN: &str =
    "the checkpoint is broken, or not in ModelOpt's layout: make it again with `qlaunch quantize`";

/// Weights of a quantized or unquantized checkpoint, decoded to the model's type.
pub struct CheckpointWeights<'a> {
    model: &'a Model,
    files: &'a MappedCheckpoint,
}

impl<'a> CheckpointWeights<'a> {
    /// Reads `model`'s weights from its mapped files.
    pub fn new(model: &'a Model, files: &'a MappedCheckpoint) -> Self {
        Self { model, files }
    }

    fn scalar(&self, name: &str) -> Result<f32> {
        scalar(self.files, name)
    }

    fn decode(&self, owner: &str, shape: [usize; 2]) -> Result<HostTensor> {
        match self.model.config.dtype {
            DType::BF16 => self.decode_to::<bf16>(owner, shape),
            DType::F16 => self.decode_to::<f16>(owner, shape),
            _ => self.decode_to::<f32>(owner, shape),
        }
    }

    fn decode_to<E: Element + StoredElement>(&self, owner: &str, shape: [usize; 2]) -> Result<HostTensor> {
        let [rows, columns] = shape;
        let mut values = E::zeros(rows * columns);
        let codes = self.files.tensor(&format!("{owner}.weight"))?;
        let stored = match codes.dtype {
            DType::F8E4M3 => shape.to_vec(),
            _ => vec![rows, columns / 2],
        };
        if codes.shape != stored {
            return Err(wrong(
                format!("wrong shape {:?}: the config says {stored:?}", codes.shape),
                self.model,
                owner,
            ));
        }
        match codes.dtype {
            DType::F8E4M3 => {
                fp8::decode(codes.bytes, self.scalar(&format!("{owner}.weight_scale"))?, &mut values)?;
            }
            _ => {
                let scales = self.files.tensor(&format!("{owner}.weight_scale"))?;
                if scales.dtype != DType::F8E4M3 || scales.shape != [rows, columns / nvfp4::BLOCK] {
                    let found = format!("block scales are {} {:?}", scales.dtype, scales.shape);
                    return Err(wrong(found, self.model, owner));
                }
                let parts = nvfp4::Parts {
                    codes: codes.bytes,
                    scales: scales.bytes,
                    scale_2: self.scalar(&format!("{owner}.weight_scale_2"))?,
                    block: nvfp4::BLOCK,
                };
                nvfp4::decode(parts, &mut values)?;
            }
        }
        HostTensor::new(shape, values)
    }
}

fn wrong(message: String, model: &Model, owner: &str) -> Error {
    Error::input(message).at(&model.folder).key(format!("{owner}.weight")).hint(BROKEN)
}

fn scalar(files: &MappedCheckpoint, name: &str) -> Result<f32> {
    let tensor = files.tensor(name)?;
    let number = tensor.bytes.try_into().map(f32::from_le_bytes);
    match number {
        Ok(scale) if tensor.dtype == DType::F32 && scale.is_finite() && scale > 0.0 => Ok(scale),
        Ok(scale) if tensor.dtype == DType::F32 => {
            Err(Error::input(format!("the scale {scale} is not finite and positive")).key(name).hint(BROKEN))
        }
        _ => {
            let found = format!("the scale is {} {:?}, not one F32", tensor.dtype, tensor.shape);
            Err(Error::input(found).key(name).hint(BROKEN))
        }
    }
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
        let owner = entry.name.trim_end_matches(".weight");
        let expected = match part.role {
            ModuleRole::Linear { rows, columns, .. } | ModuleRole::Embedding { rows, columns } => {
                vec![rows, columns]
            }
            ModuleRole::Norm { width } => vec![width],
            ModuleRole::Attention => Vec::new(),
        };
        let tensor = if entry.dtype.is_model_dtype() {
            let mapped = self.files.tensor(&entry.name)?;
            if entry.shape != expected {
                return Err(wrong(
                    format!("wrong shape {:?}: the config says {expected:?}", entry.shape),
                    self.model,
                    owner,
                ));
            }
            let stored = HostTensor::from_bytes(mapped.dtype, mapped.shape, mapped.bytes)?;
            if mapped.dtype == self.model.config.dtype {
                stored
            } else {
                stored.view().cast(self.model.config.dtype)?
            }
        } else if let (&[rows, columns], DType::F8E4M3 | DType::U8) = (&expected[..], entry.dtype) {
            self.decode(owner, [rows, columns])?
        } else {
            return Err(wrong(format!("no codec for {} weights", entry.dtype), self.model, owner));
        };
        self.files.release(&entry.name);
        Ok(tensor)
    }

    fn bias(&self, module: usize) -> Result<Option<HostTensor>> {
        let Some(entry) = self.model.bias(&self.model.modules[module]) else { return Ok(None) };
        let mapped = self.files.tensor(&entry.name)?;
        HostTensor::from_bytes(mapped.dtype, mapped.shape, mapped.bytes).map(Some)
    }
}

/// How an engine rounds an activation: a format, and the largest magnitude that its stored scale stands for.
pub type Served = (Format, f32);

/// What an engine does to activations and caches, read from a checkpoint's scales.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServedNumerics {
    /// By module index of the linear that reads the activation.
    pub inputs: BTreeMap<usize, Served>,
    /// Keys and values, by decoder layer.
    pub caches: BTreeMap<usize, (Served, Served)>,
}

impl ServedNumerics {
    /// Reads a checkpoint's scales; an unquantized model has none.
    ///
    /// # Errors
    /// A scale cannot be read, or is not finite and positive.
    pub fn read(model: &Model, files: &MappedCheckpoint) -> Result<Self> {
        let mut numerics = Self::default();
        let declares_cache =
            model.json.get("quantization_config").is_some_and(|q| !q["kv_cache_scheme"].is_null());
        let stored = |name: &str| model.files.find(name).map(|_| scalar(files, name)).transpose();
        for (module, part) in model.modules.iter().enumerate() {
            let format = match model.weight(part).map(|weight| weight.dtype) {
                Some(DType::F8E4M3) => Some(Format::Fp8),
                Some(DType::U8) => Some(Format::Nvfp4),
                _ => None,
            };
            if let (Some(format), Some(scale)) = (format, stored(&format!("{}.input_scale", part.name))?) {
                numerics.inputs.insert(module, (format, scale * format.reach()));
            }
            if let (ModuleRole::Attention, Some(layer), true) = (part.role, part.layer, declares_cache) {
                // An engine takes scale 1 where none is stored.
                let side = |name: &str| -> Result<Served> {
                    let scale = stored(&format!("{}.{name}", part.name))?.unwrap_or(1.0);
                    Ok((Format::Fp8, scale * Format::Fp8.reach()))
                };
                numerics.caches.insert(layer, (side("k_proj.k_scale")?, side("v_proj.v_scale")?));
            }
        }
        Ok(numerics)
    }

    /// How keys or values of a layer are rounded.
    pub fn cache(&self, layer: usize, side: CacheSide) -> Option<Served> {
        let &(key, value) = self.caches.get(&layer)?;
        Some(match side {
            CacheSide::Key => key,
            CacheSide::Value => value,
        })
    }

    /// Whether nothing is rounded.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.caches.is_empty()
    }
}

/// Rounds an activation in place as an engine would.
///
/// # Errors
/// The tensor's shape and the format do not go together.
pub(super) fn round<B: Backend>(backend: &B, (format, amax): Served, x: &mut B::Tensor) -> Result<()> {
    use crate::tensor::host::for_each_dtype;
    backend.edit(x, &mut |tensor| {
        let columns = tensor.shape().last().copied().unwrap_or(1);
        for_each_dtype!(Storage, tensor.storage_mut(), values => match format {
            Format::Fp8 => fp8::simulate(values, amax),
            Format::Nvfp4 => nvfp4::simulate(values, columns, amax, nvfp4::BLOCK),
        });
        Ok(())
    })
}
