//! Quantizing and writing, one module at a time: memory is one weight and its codes, never the model.

use std::path::Path;

use qlaunch_shared::assign::{Assignment, ModuleTensors, Resolved};
use qlaunch_shared::{Error, Result};

use super::companions::companions;
use super::scales::{WeightAmax, cache_scale, input_scale};
use crate::calibrate::Statistics;
use crate::network::{SourceWeights, Weights};
use crate::quantize::quantize_weight;
use crate::tensor::{MappedCheckpoint, Writer};

/// Everything that a checkpoint is made from.
pub struct Export<'a> {
    /// Weights of the source.
    pub weights: &'a SourceWeights<'a>,
    /// The source's mapped files.
    pub files: &'a MappedCheckpoint,
    /// What was planned.
    pub resolved: &'a Resolved,
    /// What calibration learnt.
    pub statistics: &'a Statistics,
}

/// Writes a checkpoint into a folder that is absent or empty; it looks whole only when it is.
///
/// `progress` is told the source bytes of each module done.
///
/// # Errors
/// A weight is not finite, the folder is not empty, or the disk is full. Nothing half-written is left.
pub fn export(job: &Export<'_>, out: &Path, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
    let assignment = assignment(job)?;
    let mut writer = Writer::create(out, &job.resolved.layout)?;
    let mut amax = WeightAmax::default();
    for own in &job.resolved.tensors {
        write_module(job, assignment, own, &mut amax, &writer)?;
        progress(own.bytes())?;
    }
    for (name, content) in companions(job.weights.model(), assignment)? {
        writer.add_file(&name, &content)?;
    }
    writer.publish()
}

fn assignment<'a>(job: &'a Export<'_>) -> Result<&'a Assignment> {
    job.resolved.assignment.as_ref().ok_or_else(|| Error::bug("there is nothing to quantize"))
}

fn write_module(
    job: &Export<'_>,
    assignment: &Assignment,
    own: &ModuleTensors,
    amax: &mut WeightAmax,
    writer: &Writer,
) -> Result<()> {
    let model = job.weights.model();
    let part = own.module.map(|module| &model.modules[module]);
    let linear = own.module.and_then(|module| assignment.linear(module));
    let cache = part.and_then(|part| assignment.cache(part.layer?));
    if let Some(linear) = linear {
        let shared = amax.of(linear, assignment, job.weights)?;
        let stored = job.weights.look(linear.module, |view| quantize_weight(view, linear.weight, shared))?;
        job.weights.release(linear.module);
        for (suffix, bytes) in stored {
            writer.write(&format!("{}.{suffix}", linear.name), &bytes)?;
        }
        if let Some(scale) = input_scale(linear, assignment, job.statistics)? {
            writer.write(&format!("{}.input_scale", linear.name), &scale.to_le_bytes())?;
        }
    }
    for tensor in &own.tensors {
        let scale = match (tensor.name.rsplit('.').next(), cache) {
            (Some("k_scale"), Some(cache)) => {
                cache_scale(cache.key, job.statistics.keys.get(&cache.layer), &cache.name)?
            }
            (Some("v_scale"), Some(cache)) => {
                cache_scale(cache.value, job.statistics.values.get(&cache.layer), &cache.name)?
            }
            _ => None,
        };
        if let Some(scale) = scale {
            writer.write(&tensor.name, &scale.to_le_bytes())?;
        } else if linear.is_none() || tensor.name.ends_with(".bias") {
            writer.write(&tensor.name, job.files.tensor(&tensor.name)?.bytes)?;
            job.files.release(&tensor.name);
        }
    }
    Ok(())
}
