//! Rows that are weighted and added to rows of another matrix by number.

use crate::ops::routing::Share;
use crate::tensor::dtype::Element;
use crate::tensor::simd::dispatched;

/// Rows of one stretch of a sum, and what is added to them.
pub(super) struct Stretch<'a, E> {
    /// The rows of the sum from `first` on.
    sum: &'a mut [E],
    /// Row of the sum that `sum` begins with.
    first: usize,
    /// What is added, row by row.
    rows: &'a [E],
    /// The row of the sum that each one goes to.
    tokens: &'a [u32],
    /// The factor on each one.
    weights: &'a [f32],
}

/// Cuts the work into stretches of `height` added rows that touch different rows of the sum. Tokens ascend.
pub(super) fn stretches<'a, E>(
    mut sum: &'a mut [E],
    rows: &'a [E],
    share: &'a Share,
    width: usize,
    height: usize,
) -> Vec<Stretch<'a, E>> {
    let mut first = 0;
    let parts =
        share.tokens.chunks(height).zip(share.weights.chunks(height)).zip(rows.chunks(height * width));
    let cut = |((tokens, weights), rows): ((&'a [u32], &'a [f32]), &'a [E])| {
        let end = tokens.last().map_or(first, |&last| last as usize + 1);
        let (own, rest) = std::mem::take(&mut sum).split_at_mut((end - first) * width);
        sum = rest;
        let stretch = Stretch { sum: own, first, rows, tokens, weights };
        first = end;
        stretch
    };
    parts.map(cut).collect()
}

impl<E: Element> Stretch<'_, E> {
    /// `sum[token] = round(sum[token] + round(row · weight))` for each row.
    pub(super) fn add(self, set: crate::tensor::simd::InstructionSet, width: usize) {
        for ((row, &token), &weight) in self.rows.chunks_exact(width).zip(self.tokens).zip(self.weights) {
            let at = (token as usize - self.first) * width;
            add_row(set, &mut self.sum[at..at + width], row, weight);
        }
    }
}

dispatched! {
    fn add_row<E: Element>(sum: &mut [E], row: &[E], weight: f32) {
        for (sum, element) in sum.iter_mut().zip(row) {
            let weighted = E::from_f32(element.to_f32() * weight);
            *sum = E::from_f32(sum.to_f32() + weighted.to_f32());
        }
    }
}
