//! Dense row-major tensors in a GPU's memory.

use std::sync::Arc;

use qlaunch_shared::{Error, Result};

use super::lanes::Memory;
use crate::ops::operands::Shaped;
use crate::tensor::DType;

/// A tensor in a GPU's memory. Clones share it until one is written.
#[derive(Debug, Clone)]
pub struct CudaTensor {
    pub(super) shape: Vec<usize>,
    pub(super) dtype: DType,
    pub(super) data: Arc<Memory>,
}

impl CudaTensor {
    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Shaped for CudaTensor {
    fn sides(&self) -> &[usize] {
        &self.shape
    }
}

/// Fails unless all operands have one type.
pub(super) fn one_type(operation: &str, operands: &[&CudaTensor]) -> Result<DType> {
    let first = operands.first().map_or(DType::F32, |operand| operand.dtype);
    match operands.iter().find(|operand| operand.dtype != first) {
        None => Ok(first),
        Some(other) => {
            Err(Error::input(format!("`{operation}` cannot mix {first} and {} operands", other.dtype))
                .hint("all weights that a model computes with must have the type that its config.json names"))
        }
    }
}
