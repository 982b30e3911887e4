//! The rows of attention between its two matrix products: scores to weights, and running sums to results.

use super::exponential::exp;
use crate::tensor::dtype::Element;
use crate::tensor::simd::dispatched;

/// Sums that run side by side: the order of summation is the same whatever the registers' width.
const LANES: usize = 32;

dispatched! {
    /// The largest scaled score.
    pub(super) fn largest(scores: &[f32], scale: f32) -> f32 {
        let (chunks, rest) = scores.as_chunks::<LANES>();
        let mut maxima = [f32::NEG_INFINITY; LANES];
        for chunk in chunks {
            for (maximum, score) in maxima.iter_mut().zip(chunk) {
                *maximum = maximum.max(score * scale);
            }
        }
        for (maximum, score) in maxima.iter_mut().zip(filled_up(rest)) {
            *maximum = maximum.max(score * scale);
        }
        maxima.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

dispatched! {
    /// Writes `exp(score · scale − maximum)`, rounded, and returns the sum of the weights before rounding.
    pub(super) fn weights<E: Element>(scores: &[f32], scale: f32, maximum: f32, out: &mut [E]) -> f32 {
        let (score_chunks, score_rest) = scores.as_chunks::<LANES>();
        let (out_chunks, out_rest) = out.as_chunks_mut::<LANES>();
        let mut sums = [0.0f32; LANES];
        for (scores, out) in score_chunks.iter().zip(out_chunks) {
            weigh(scores, scale, maximum, out, &mut sums);
        }
        if !score_rest.is_empty() {
            // Of the lanes behind, each adds zero to its sum.
            let mut rounded = [E::from_f32(0.0); LANES];
            weigh(&filled_up(score_rest), scale, maximum, &mut rounded, &mut sums);
            out_rest.copy_from_slice(&rounded[..out_rest.len()]);
        }
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                sums[lane] += sums[lane + width];
            }
            width /= 2;
        }
        sums[0]
    }
}

/// Scores with minus infinity behind them: loops over a fixed number of lanes are what the compiler makes vectors of.
#[inline(always)]
fn filled_up(scores: &[f32]) -> [f32; LANES] {
    let mut filled = [f32::NEG_INFINITY; LANES];
    filled[..scores.len()].copy_from_slice(scores);
    filled
}

#[inline(always)]
fn weigh<E: Element>(
    scores: &[f32; LANES],
    scale: f32,
    maximum: f32,
    out: &mut [E; LANES],
    sums: &mut [f32; LANES],
) {
    for ((sum, score), out) in sums.iter_mut().zip(scores).zip(out) {
        let weight = exp(score * scale - maximum);
        *sum += weight;
        *out = E::from_f32(weight);
    }
}

dispatched! {
    /// Multiplies what was gathered, and the sum that goes with it, by `exp(change)`; returns the new sum.
    ///
    /// A row that has gathered nothing has a maximum of minus infinity, and stays at zero.
    pub(super) fn rescale(gathered: &mut [f32], sum: f32, change: f32) -> f32 {
        if change == 0.0 {
            return sum;
        }
        let factor = exp(change);
        for value in gathered.iter_mut() {
            *value *= factor;
        }
        sum * factor
    }
}

dispatched! {
    /// `gathered / sum`, rounded.
    pub(super) fn write_quotients<E: Element>(gathered: &[f32], sum: f32, out: &mut [E]) {
        for (out, gathered) in out.iter_mut().zip(gathered) {
            *out = E::from_f32(*gathered / sum);
        }
    }
}
