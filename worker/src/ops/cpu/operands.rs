//! Checks of operands: one type for all, shapes that fit, with an error that names the operation.

use qlaunch_shared::{Error, Result};

use super::gemm::KernelElement;
use crate::ops::backend::{AttentionShape, RotaryTables};
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

/// Rows and columns of a matrix; leading sides are rows.
pub(super) fn matrix(operation: &str, tensor: &HostTensor) -> Result<(usize, usize)> {
    match tensor.shape() {
        [rows @ .., columns] if *columns > 0 => Ok((rows.iter().product(), *columns)),
        shape => Err(misfit(operation, format!("{shape:?} is no matrix"))),
    }
}

/// Fails unless two operands have the same shape.
pub(super) fn same_shape(operation: &str, left: &HostTensor, right: &HostTensor) -> Result<()> {
    if left.shape() == right.shape() {
        return Ok(());
    }
    Err(misfit(operation, format!("{:?} and {:?} differ", left.shape(), right.shape())))
}

/// Sizes of a linear layer: `[m, k]`, `[n, k]`.
pub(super) fn linear(
    x: &HostTensor,
    weight: &HostTensor,
    bias: Option<&HostTensor>,
) -> Result<(usize, usize)> {
    let ((_, k), (n, weight_k)) = (matrix("linear", x)?, matrix("linear", weight)?);
    if k != weight_k || weight.shape().len() != 2 {
        let shapes = format!("x is {:?}, but the weight is {:?}", x.shape(), weight.shape());
        return Err(misfit("linear", shapes));
    }
    match bias {
        Some(bias) if bias.shape() != [n] => {
            Err(misfit("linear", format!("the weight has {n} rows, but the bias is {:?}", bias.shape())))
        }
        _ => Ok((n, k)),
    }
}

/// Fails unless queries, keys and values have the sizes that `shape` says.
pub(super) fn attention(
    q: &HostTensor,
    k: &HostTensor,
    v: &HostTensor,
    shape: &AttentionShape,
) -> Result<()> {
    shape.check()?;
    let query = (shape.tokens(), shape.heads * shape.head_dim);
    let key = (shape.tokens(), shape.kv_heads * shape.head_dim);
    for (name, tensor, expected) in [("q", q, query), ("k", k, key), ("v", v, key)] {
        if matrix("attention", tensor)? != expected {
            let (rows, columns) = expected;
            let found = tensor.shape();
            return Err(misfit("attention", format!("{name} is {found:?} instead of [{rows}, {columns}]")));
        }
    }
    Ok(())
}

/// Checks rotary tables against the rows they turn; returns how many pairs of dimensions of a head turn.
pub(super) fn rotary(
    x: &HostTensor,
    head_dim: usize,
    tables: &RotaryTables<HostTensor>,
    positions: &[u32],
) -> Result<usize> {
    let (rows, width) = matrix("rotate", x)?;
    same_shape("rotate", &tables.cosines, &tables.sines)?;
    let (known, half) = matrix("rotate", &tables.cosines)?;
    if head_dim == 0 || width % head_dim != 0 || 2 * half > head_dim {
        return Err(misfit(
            "rotate",
            format!("rows of {width}, heads of {head_dim} and tables of {half} do not fit"),
        ));
    }
    if rows != positions.len() {
        return Err(misfit("rotate", format!("{rows} rows have {} positions", positions.len())));
    }
    match positions.iter().max() {
        Some(last) if *last as usize >= known => Err(Error::input(format!(
            "`rotate` needs position {last}, but its tables have {known} positions"
        ))),
        _ => Ok(half),
    }
}

/// Fails unless there is one target per row, and each is in the vocabulary.
pub(super) fn targets(rows: usize, vocabulary: usize, targets: &[u32]) -> Result<()> {
    if rows != targets.len() {
        return Err(misfit("losses", format!("{rows} rows have {} targets", targets.len())));
    }
    match targets.iter().find(|target| **target as usize >= vocabulary) {
        None => Ok(()),
        Some(target) => {
            Err(Error::input(format!("token {target} is not in the model's vocabulary of {vocabulary}"))
                .hint("the token ids and the model must use the same tokenizer"))
        }
    }
}

/// Operands whose sizes do not fit together.
pub(super) fn misfit(operation: &str, sizes: String) -> Error {
    Error::input(format!("`{operation}` got operands that do not fit: {sizes}"))
        .hint("config.json and the weights must belong to the same model")
}
