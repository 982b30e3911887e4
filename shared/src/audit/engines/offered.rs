//! A checkpoint as a loader finds it: what it declares and what it stores, on disk or only planned.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use serde_json::Value;

use crate::assign::{Resolved, quantization_config};
use crate::audit::Subject;
use crate::checkpoint::{CheckpointFiles, DType, QuantizationConfig};
use crate::model::Model;

/// One stored tensor of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored<'a> {
    /// Name without the module's, as in `weight_scale`.
    pub(super) suffix: &'a str,
    pub(super) dtype: DType,
    pub(super) shape: &'a [usize],
}

/// A checkpoint that is offered to engines.
pub struct Offered<'a> {
    /// The source model, whose modules the checkpoint has.
    pub(super) model: &'a Model,
    /// `quantization_config` of `config.json`.
    pub(super) config: Option<Value>,
    /// `hf_quant_config.json`.
    pub(super) file: Option<Value>,
    /// Stored tensors by index of the module.
    stored: Vec<Vec<Stored<'a>>>,
    /// Where values of scales can be read; a plan has none.
    files: Option<&'a CheckpointFiles>,
}

impl<'a> Offered<'a> {
    /// What a plan would write.
    pub fn planned(model: &'a Model, resolved: &'a Resolved) -> Self {
        let declared = resolved.assignment.as_ref().map(|assignment| quantization_config(model, assignment));
        let tensors = resolved.tensors.iter().flat_map(|own| &own.tensors);
        let tensors = tensors.map(|tensor| (tensor.name.as_str(), tensor.dtype, tensor.shape.as_slice()));
        Self {
            model,
            config: declared.as_ref().map(QuantizationConfig::config_json),
            file: declared
                .as_ref()
                .filter(|declared| !declared.is_bitsandbytes())
                .map(QuantizationConfig::hf_quant_config),
            stored: by_module(model, tensors),
            files: None,
        }
    }

    /// What lies in a checkpoint folder.
    pub fn on_disk(subject: &'a Subject<'_>) -> Self {
        let tensors = subject
            .files
            .tensors()
            .map(|tensor| (tensor.name.as_str(), tensor.dtype, tensor.shape.as_slice()));
        let text = std::fs::read(subject.files.folder.join("hf_quant_config.json")).ok();
        Self {
            model: subject.source,
            config: subject.config.get("quantization_config").filter(|config| !config.is_null()).cloned(),
            file: text.and_then(|text| serde_json::from_slice(&text).ok()),
            stored: by_module(subject.source, tensors),
            files: Some(&subject.files),
        }
    }

    /// What configs declare and tensors of these names, types and shapes store.
    pub fn new(
        model: &'a Model,
        (config, file): (Option<Value>, Option<Value>),
        tensors: impl IntoIterator<Item = (&'a str, DType, &'a [usize])>,
    ) -> Self {
        Self { model, config, file, stored: by_module(model, tensors), files: None }
    }

    /// The stored tensors of a module.
    pub(super) fn stored(&self, module: usize) -> &[Stored<'a>] {
        self.stored.get(module).map_or(&[], Vec::as_slice)
    }

    /// The stored tensor of a module with this suffix.
    pub(super) fn find(&self, module: usize, suffix: &str) -> Option<Stored<'a>> {
        self.stored(module).iter().find(|stored| stored.suffix == suffix).copied()
    }

    /// The value of a scale, where there is a file to read it from.
    pub(super) fn scalar(&self, name: &str) -> Option<f32> {
        let (header, tensor) = self.files?.find(name)?;
        if (tensor.dtype, tensor.length) != (DType::F32, 4) {
            return None;
        }
        let mut file = File::open(&header.path).ok()?;
        let mut bytes = [0u8; 4];
        file.seek(SeekFrom::Start(tensor.offset)).ok()?;
        file.read_exact(&mut bytes).ok()?;
        Some(f32::from_le_bytes(bytes))
    }
}

/// Sorts tensors to the modules whose names theirs begin with.
fn by_module<'a>(
    model: &Model,
    tensors: impl IntoIterator<Item = (&'a str, DType, &'a [usize])>,
) -> Vec<Vec<Stored<'a>>> {
    let places: HashMap<&str, usize> =
        model.modules.iter().enumerate().map(|(place, module)| (module.name.as_str(), place)).collect();
    let mut all = vec![Vec::new(); model.modules.len()];
    for (name, dtype, shape) in tensors {
        // Suffixes have dots of their own: `weight.absmax`, `weight_quantizer._svdquant_lora_a`.
        let owner = name.rmatch_indices('.').find_map(|(dot, _)| Some((dot, *places.get(&name[..dot])?)));
        if let Some((dot, place)) = owner {
            all[place].push(Stored { suffix: &name[dot + 1..], dtype, shape });
        }
    }
    all
}
