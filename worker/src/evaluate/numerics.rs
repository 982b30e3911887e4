//! What an engine does to activations and caches, read from what a checkpoint declares and stores.

use std::collections::BTreeMap;

use qlaunch_shared::checkpoint::{CacheAlgorithm, DType, Declared, LayerAlgorithm};
use qlaunch_shared::model::{Model, Module, ModuleRole};
use qlaunch_shared::numerics::Format;
use qlaunch_shared::{Error, Result};

use super::checkpoint::BROKEN;
use crate::network::CacheSide;
use crate::quantize::CacheRounding;
use crate::tensor::MappedCheckpoint;
use crate::tensor::host::HostTensor;

/// How an engine rounds an activation: a format, and the largest magnitude that its stored scale stands for; 0 where the
/// format is scaled by the values at hand.
pub type Served = (Format, f32);

/// What an engine does to the input of a linear, in this order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServedInput {
    /// A factor per channel.
    pub factors: Option<Vec<f32>>,
    /// How it is rounded.
    pub rounding: Option<Served>,
}

/// The unquantized branch beside a weight: what it makes of the input, factors included and not rounded, is added to
/// the output.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    /// `[rank, columns]`.
    pub down: HostTensor,
    /// `[rows, rank]`.
    pub up: HostTensor,
}

/// What an engine does to activations and caches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServedNumerics {
    /// By module index of the linear that reads the activation.
    pub inputs: BTreeMap<usize, ServedInput>,
    /// By module index of the linear.
    pub branches: BTreeMap<usize, Branch>,
    /// Keys and values, by decoder layer.
    pub caches: BTreeMap<usize, (CacheRounding, CacheRounding)>,
    /// Values of a head.
    pub head_dim: usize,
}

impl ServedNumerics {
    /// Reads a checkpoint's declaration and scales; an unquantized model has none.
    ///
    /// # Errors
    /// The declaration is of something that nothing here decodes, or a scale is missing, cannot be read, or is not finite
    /// and positive.
    pub fn read(model: &Model, files: &MappedCheckpoint) -> Result<Self> {
        let mut numerics = Self { head_dim: model.config.head_dim, ..Self::default() };
        let Some(declared) = Declared::open(&model.folder, &model.json)? else { return Ok(numerics) };
        let stored = Stored { model, files };
        for (module, part) in model.modules.iter().enumerate() {
            match (part.role, part.layer, declared.kv_cache) {
                (ModuleRole::Linear { .. }, ..) if !model.is_tied_head(part) => {
                    if let Some(algorithm) = declared.algorithm(&part.name) {
                        numerics.read_linear(&stored, (module, part), algorithm)?;
                    }
                }
                (ModuleRole::Attention, Some(layer), Some(cache)) => {
                    let key = stored.cache(part, ("k_proj.k_scale", "k_proj.k_bias"), cache)?;
                    let value = stored.cache(
                        part,
                        ("v_proj.v_scale", "v_proj.v_bias"),
                        CacheAlgorithm { rotated: false, ..cache },
                    )?;
                    numerics.caches.insert(layer, (key, value));
                }
                _ => {}
            }
        }
        Ok(numerics)
    }

    fn read_linear(
        &mut self,
        stored: &Stored<'_>,
        (module, part): (usize, &Module),
        algorithm: LayerAlgorithm,
    ) -> Result<()> {
        let factors = stored.factors(part)?;
        let rounding = stored.rounding(part, algorithm)?;
        if factors.is_some() || rounding.is_some() {
            self.inputs.insert(module, ServedInput { factors, rounding });
        }
        let branch = stored.branch(part)?;
        if branch.is_some() && part.layer.is_none() {
            return Err(Error::input("a low-rank branch beside the output head cannot be evaluated")
                .key(part.name.as_str())
                .hint("leave the head out with an entry `{quantizer_name: '*lm_head*', enable: false}`"));
        }
        self.branches.extend(branch.map(|branch| (module, branch)));
        Ok(())
    }

    /// How keys or values of a layer are rounded.
    pub fn cache(&self, layer: usize, side: CacheSide) -> Option<&CacheRounding> {
        let (key, value) = self.caches.get(&layer)?;
        Some(match side {
            CacheSide::Key => key,
            CacheSide::Value => value,
        })
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.caches.is_empty() && self.branches.is_empty()
    }
}

/// The tensors of a checkpoint that concern activations.
struct Stored<'a> {
    model: &'a Model,
    files: &'a MappedCheckpoint,
}

impl Stored<'_> {
    fn exists(&self, name: &str) -> bool {
        self.model.files.find(name).is_some()
    }

    fn tensor(&self, name: &str) -> Result<Option<HostTensor>> {
        if !self.exists(name) {
            return Ok(None);
        }
        let mapped = self.files.tensor(name)?;
        let tensor = HostTensor::from_bytes(mapped.dtype, mapped.shape, mapped.bytes);
        tensor.map(Some).map_err(|e| e.at(&self.model.folder).key(name).hint(BROKEN))
    }

    /// The factors on an input's channels, which are stored where no module before took them over.
    fn factors(&self, part: &Module) -> Result<Option<Vec<f32>>> {
        let name = format!("{}.pre_quant_scale", part.name);
        let Some(factors) = self.tensor(&name)? else { return Ok(None) };
        let ModuleRole::Linear { columns, .. } = part.role else { return Ok(None) };
        let factors = factors.to_f32();
        if factors.len() != columns || factors.iter().any(|factor| !factor.is_finite() || *factor <= 0.0) {
            let found =
                format!("the {} factors are not {columns} finite and positive numbers", factors.len());
            return Err(Error::input(found).at(&self.model.folder).key(name).hint(BROKEN));
        }
        Ok(Some(factors))
    }

    fn rounding(&self, part: &Module, algorithm: LayerAlgorithm) -> Result<Option<Served>> {
        let Some(format) = algorithm.input else { return Ok(None) };
        let Some(reach) = format.reach() else { return Ok(Some((format, 0.0))) };
        let name = format!("{}.input_scale", part.name);
        match self.scalar(&name)? {
            Some(scale) => Ok(Some((format, scale * reach))),
            // Two of ModelOpt's names leave open whether activations are rounded; then the scale tells.
            None if algorithm.smoothed || algorithm.low_rank.is_some() => Ok(None),
            None => {
                let missing = format!("{format} activations are declared, and their scale is missing");
                Err(Error::input(missing).at(&self.model.folder).key(name).hint(BROKEN))
            }
        }
    }

    fn branch(&self, part: &Module) -> Result<Option<Branch>> {
        let tensor = |suffix| self.tensor(&format!("{}.weight_quantizer._svdquant_lora_{suffix}", part.name));
        let (Some(down), Some(up)) = (tensor("a")?, tensor("b")?) else { return Ok(None) };
        let ModuleRole::Linear { rows, columns, .. } = part.role else { return Ok(None) };
        match (down.shape(), up.shape()) {
            (&[rank, inner], &[outer, same]) if inner == columns && outer == rows && rank == same => {
                Ok(Some(Branch { down, up }))
            }
            (down, up) => {
                let found = format!(
                    "a low-rank branch of {down:?} and {up:?} beside a weight of [{rows}, {columns}]"
                );
                Err(Error::input(found).at(&self.model.folder).key(part.name.as_str()).hint(BROKEN))
            }
        }
    }

    fn cache(
        &self,
        part: &Module,
        (scale, bias): (&str, &str),
        cache: CacheAlgorithm,
    ) -> Result<CacheRounding> {
        // An engine takes scale 1 where none is stored, and reads it as that of E4M3 in every format.
        let scale = self.scalar(&format!("{}.{scale}", part.name))?.unwrap_or(1.0);
        let offset = self.tensor(&format!("{}.{bias}", part.name))?.map(|offset| offset.to_f32());
        let (heads, width) = (self.model.config.kv_heads, self.model.config.head_dim);
        if offset.as_ref().is_some_and(|offset| offset.len() != heads * width)
            || (cache.offset && offset.is_none())
        {
            let found = format!("offsets of {heads} heads of {width} are missing or of another shape");
            return Err(Error::input(found)
                .at(&self.model.folder)
                .key(format!("{}.{bias}", part.name))
                .hint(BROKEN));
        }
        Ok(CacheRounding {
            format: cache.format,
            amax: scale * Format::Fp8.largest(),
            offset,
            rotated: cache.rotated,
        })
    }

    fn scalar(&self, name: &str) -> Result<Option<f32>> {
        if !self.exists(name) {
            return Ok(None);
        }
        let tensor = self.files.tensor(name)?;
        let number = tensor.bytes.try_into().map(f32::from_le_bytes);
        let fault = match number {
            Ok(scale) if tensor.dtype == DType::F32 && scale.is_finite() && scale > 0.0 => {
                return Ok(Some(scale));
            }
            Ok(scale) if tensor.dtype == DType::F32 => {
                format!("the scale {scale} is not finite and positive")
            }
            _ => format!("the scale is {} {:?}, not one F32", tensor.dtype, tensor.shape),
        };
        Err(Error::input(fault).at(&self.model.folder).key(name).hint(BROKEN))
    }
}
