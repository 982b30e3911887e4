//! Checks of operands: one type for all, shapes that fit, with an error that names the operation.

use qlaunch_shared::{Error, Result};

use super::gemm::KernelElement;
use crate::ops::backend::{AttentionShape, RotaryTables};
use crate::ops::routing::Share;
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

/// Fails unless there is one place for each channel of `x`.
pub(super) fn channels(x: &HostTensor, amax: usize, sums: usize) -> Result<()> {
    let (_, columns) = matrix("channels", x)?;
    if columns != amax || columns != sums {
        return Err(misfit("channels", format!("{columns} channels have {amax} and {sums} places")));
    }
    Ok(())
}

/// The columns of `x`, if their products fit into `sums`, and its rows are whole samples of `together`.
pub(super) fn gram(x: &HostTensor, together: usize, sums: usize) -> Result<usize> {
    let (rows, columns) = matrix("gram", x)?;
    if columns == 0 || sums != columns * columns {
        return Err(misfit("gram", format!("{columns} columns have {sums} sums")));
    }
    if together == 0 || rows % together != 0 {
        return Err(misfit("gram", format!("{rows} rows are no whole samples of {together}")));
    }
    Ok(columns)
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

/// The number of experts that scores are for, if a token can go through so many.
pub(super) fn routing(scores: &HostTensor, per_token: usize) -> Result<usize> {
    let (_, experts) = matrix("route", scores)?;
    if per_token == 0 || per_token > experts {
        return Err(misfit("route", format!("a token cannot go through {per_token} of {experts} experts")));
    }
    Ok(experts)
}

/// The width of rows that are added to a sum, if each has a row of its own there.
pub(super) fn scattered(sum: &HostTensor, rows: &HostTensor, share: &Share) -> Result<usize> {
    let ((tokens, width), (count, row_width)) = (matrix("scatter_add", sum)?, matrix("scatter_add", rows)?);
    if width != row_width || count != share.tokens.len() || count != share.weights.len() {
        let sizes = format!("{:?} to {:?} at {} tokens", rows.shape(), sum.shape(), share.tokens.len());
        return Err(misfit("scatter_add", sizes));
    }
    let ascends = share.tokens.windows(2).all(|pair| pair[0] < pair[1]);
    match share.tokens.last() {
        Some(&last) if !ascends || last as usize >= tokens => {
            Err(misfit("scatter_add", format!("tokens do not ascend within {tokens} rows")))
        }
        _ => Ok(width),
    }
}

/// Operands whose sizes do not fit together.
pub(super) fn misfit(operation: &str, sizes: String) -> Error {
    Error::input(format!("`{operation}` got operands that do not fit: {sizes}"))
        .hint("config.json and the weights must belong to the same model")
}
