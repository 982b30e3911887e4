//! Operands as slices of one type.

use qlaunch_shared::{Error, Result};

use super::gemm::KernelElement;
use crate::tensor::host::{HostTensor, StoredElement};

/// A type that the CPU computes models in.
pub(super) trait ModelElement: StoredElement + KernelElement {}

impl<E: StoredElement + KernelElement> ModelElement for E {}

/// The elements of an operand, which must be of type `E`.
pub(super) fn typed<'a, E: ModelElement>(operation: &str, operand: &'a HostTensor) -> Result<&'a [E]> {
    E::borrow(operand.view().elements()).ok_or_else(|| {
        Error::input(format!("`{operation}` cannot mix {} and {} operands", E::DTYPE, operand.dtype()))
            .hint("all weights that a model computes with must have the type that its config.json names")
    })
}
