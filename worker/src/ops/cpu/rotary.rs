//! Rotary position embedding, the halves of a head turning together as in transformers.

use crate::tensor::dtype::Element;
use crate::tensor::simd::dispatched;

/// What turns each token's heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turns<'a, E> {
    /// `[positions, half]`.
    pub(super) cosines: &'a [E],
    /// `[positions, half]`.
    pub(super) sines: &'a [E],
    /// Pairs of dimensions that turn.
    pub(super) half: usize,
    /// Width of a head.
    pub(super) head_dim: usize,
}

dispatched! {
    /// Turns the heads of the rows of `x`, one position per row.
    pub(super) fn rotate<E: Element>(x: &mut [E], turns: Turns<'_, E>, positions: &[u32]) {
        let width = x.len() / positions.len().max(1);
        for (row, position) in x.chunks_exact_mut(width.max(1)).zip(positions) {
            let first = *position as usize * turns.half;
            let cosines = &turns.cosines[first..][..turns.half];
            let sines = &turns.sines[first..][..turns.half];
            for head in row.chunks_exact_mut(turns.head_dim) {
                let (left, right) = head[..2 * turns.half].split_at_mut(turns.half);
                turn(left, right, cosines, sines);
            }
        }
    }
}

/// `left · cos − right · sin` and `right · cos + left · sin`, every product and sum rounded.
#[inline(always)]
fn turn<E: Element>(left: &mut [E], right: &mut [E], cosines: &[E], sines: &[E]) {
    for (((left, right), cosine), sine) in left.iter_mut().zip(right).zip(cosines).zip(sines) {
        let (a, b, cosine, sine) = (left.to_f32(), right.to_f32(), cosine.to_f32(), sine.to_f32());
        *left = E::from_f32(rounded::<E>(a * cosine) + rounded::<E>(-b * sine));
        *right = E::from_f32(rounded::<E>(b * cosine) + rounded::<E>(a * sine));
    }
}

#[inline(always)]
fn rounded<E: Element>(value: f32) -> f32 {
    E::from_f32(value).to_f32()
}
