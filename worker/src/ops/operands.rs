//! Checks of operands on any device: shapes that fit, with an error that names the operation.

use qlaunch_shared::{Error, Result};

use super::backend::{AttentionShape, RotaryTables};
use super::routing::Share;
use crate::tensor::host::HostTensor;

/// A tensor of any device.
pub(super) trait Shaped {
    /// Sides, outermost first.
    fn sides(&self) -> &[usize];
}

impl Shaped for HostTensor {
    fn sides(&self) -> &[usize] {
        self.shape()
    }
}

/// Rows and columns of a matrix; leading sides are rows.
pub(super) fn matrix(operation: &str, tensor: &impl Shaped) -> Result<(usize, usize)> {
    match tensor.sides() {
        [rows @ .., columns] if *columns > 0 => Ok((rows.iter().product(), *columns)),
        shape => Err(misfit(operation, format!("{shape:?} is no matrix"))),
    }
}

/// Fails unless two operands have the same shape.
pub(super) fn same_shape(operation: &str, left: &impl Shaped, right: &impl Shaped) -> Result<()> {
    if left.sides() == right.sides() {
        return Ok(());
    }
    Err(misfit(operation, format!("{:?} and {:?} differ", left.sides(), right.sides())))
}

/// Sizes of a linear layer: `[m, k]`, `[n, k]`.
pub(super) fn linear<T: Shaped>(x: &T, weight: &T, bias: Option<&T>) -> Result<(usize, usize)> {
    let ((_, k), (n, weight_k)) = (matrix("linear", x)?, matrix("linear", weight)?);
    if k != weight_k || weight.sides().len() != 2 {
        let shapes = format!("x is {:?}, but the weight is {:?}", x.sides(), weight.sides());
        return Err(misfit("linear", shapes));
    }
    match bias {
        Some(bias) if bias.sides() != [n] => {
            Err(misfit("linear", format!("the weight has {n} rows, but the bias is {:?}", bias.sides())))
        }
        _ => Ok((n, k)),
    }
}

/// Fails unless queries, keys and values have the sizes that `shape` says.
pub(super) fn attention<T: Shaped>(q: &T, k: &T, v: &T, shape: &AttentionShape) -> Result<()> {
    shape.check()?;
    let query = (shape.tokens(), shape.heads * shape.head_dim);
    let key = (shape.tokens(), shape.kv_heads * shape.head_dim);
    for (name, tensor, expected) in [("q", q, query), ("k", k, key), ("v", v, key)] {
        if matrix("attention", tensor)? != expected {
            let (rows, columns) = expected;
            let found = tensor.sides();
            return Err(misfit("attention", format!("{name} is {found:?} instead of [{rows}, {columns}]")));
        }
    }
    Ok(())
}

/// Checks rotary tables against the rows they turn; returns how many pairs of dimensions of a head turn.
pub(super) fn rotary<T: Shaped>(
    x: &T,
    head_dim: usize,
    tables: &RotaryTables<T>,
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
pub(super) fn channels(x: &impl Shaped, amax: usize, sums: usize) -> Result<()> {
    let (_, columns) = matrix("channels", x)?;
    if columns != amax || columns != sums {
        return Err(misfit("channels", format!("{columns} channels have {amax} and {sums} places")));
    }
    Ok(())
}

/// The columns of `x`, if their products fit into `sums`, and its rows are whole samples of `together`.
pub(super) fn gram(x: &impl Shaped, together: usize, sums: usize) -> Result<usize> {
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
pub(super) fn routing(scores: &impl Shaped, per_token: usize) -> Result<usize> {
    let (_, experts) = matrix("route", scores)?;
    if per_token == 0 || per_token > experts {
        return Err(misfit("route", format!("a token cannot go through {per_token} of {experts} experts")));
    }
    Ok(experts)
}

/// The width of rows that are added to a sum, if each has a row of its own there.
pub(super) fn scattered(sum: &impl Shaped, rows: &impl Shaped, share: &Share) -> Result<usize> {
    let ((tokens, width), (count, row_width)) = (matrix("scatter_add", sum)?, matrix("scatter_add", rows)?);
    if width != row_width || count != share.tokens.len() || count != share.weights.len() {
        let sizes = format!("{:?} to {:?} at {} tokens", rows.sides(), sum.sides(), share.tokens.len());
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
