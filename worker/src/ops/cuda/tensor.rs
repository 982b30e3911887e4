//! Dense row-major tensors in a GPU's memory.

use std::sync::Arc;

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
