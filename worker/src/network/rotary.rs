//! Tables of cosines and sines for rotary position embedding.

use qlaunch_shared::Result;
use qlaunch_shared::model::ModelConfig;

use crate::ops::{Backend, RotaryTables};
use crate::tensor::host::HostTensor;

/// Tables for positions `0..length`: angles in f32, rounded to the model's type once, as transformers does.
pub(super) fn tables<B: Backend>(
    backend: &B,
    config: &ModelConfig,
    length: usize,
) -> Result<RotaryTables<B::Tensor>> {
    let (frequencies, attention) = config.rope.frequencies(config.head_dim);
    let table = |function: fn(f32) -> f32| -> Result<B::Tensor> {
        let values = (0..length)
            .flat_map(|position| frequencies.iter().map(move |f| function(position as f32 * f) * attention))
            .collect();
        let wide = HostTensor::new::<f32>([length, frequencies.len()], values)?;
        backend.adopt(wide.view().cast(config.dtype)?)
    };
    Ok(RotaryTables { cosines: table(f32::cos)?, sines: table(f32::sin)? })
}
