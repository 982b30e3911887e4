//! Rows of a table by number.

use qlaunch_shared::{Error, Result};

use crate::tensor::dtype::Element;

/// Copies rows `ids` of `table`, each `width` wide.
///
/// # Errors
/// The table has no such row.
pub(super) fn gather<E: Element>(table: &[E], width: usize, ids: &[u32]) -> Result<Vec<E>> {
    let mut rows = Vec::with_capacity(ids.len() * width);
    for id in ids {
        let row = (*id as usize).checked_mul(width).and_then(|first| table.get(first..first + width));
        let row = row.ok_or_else(|| {
            Error::input(format!("row {id} is past the end of a table of {} rows", table.len() / width))
                .hint("the token ids and the model must use the same tokenizer")
        })?;
        rows.extend_from_slice(row);
    }
    Ok(rows)
}
