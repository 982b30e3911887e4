//! INT8 and INT4: whole numbers under an f32 scale per tensor, row or block.
//!
//! The definition is ModelOpt's CPU path (modelopt.md §3.4): codes by division and rounding to even; the simulation
//! multiplies by `largest / amax` and divides by it again. INT4 packs two rows a byte.

use rayon::prelude::*;

use super::Source;
use super::runs::{ROWS_ELEMENTS, Runs};
use crate::tensor::dtype::Element;
use crate::tensor::simd::{InstructionSet, dispatched};

/// Magnitudes up to this one count as zero in simulations, which then give zero.
const SMALLEST_AMAX: f32 = 1.0 / (1 << 24) as f32;
/// Added to a number below 2^22, it leaves the nearest integer, ties to even, in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// Whole numbers of a format: `-largest - 1 ..= largest`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    largest: f32,
}

impl Range {
    /// −128 to 127.
    pub const INT8: Self = Self { largest: 127.0 };
    /// −8 to 7.
    pub const INT4: Self = Self { largest: 7.0 };

    /// Largest code, which a run's largest magnitude becomes.
    pub const fn largest(self) -> f32 {
        self.largest
    }

    /// A number put between the smallest and the largest code; NaN stays NaN.
    #[inline(always)]
    fn bounded(self, value: f32) -> f32 {
        let value = if value > self.largest { self.largest } else { value };
        if value < -self.largest - 1.0 { -self.largest - 1.0 } else { value }
    }

    /// The nearest code, ties to even, as the low bits of the result. Bounds are whole, so they can be kept first.
    #[inline(always)]
    fn code(self, value: f32) -> u8 {
        (self.bounded(value) + MAGIC).to_bits() as u8
    }

    /// The nearest code as a number, with the sign of what it came from.
    #[inline(always)]
    fn round(self, value: f32) -> f32 {
        ((self.bounded(value) + MAGIC) - MAGIC).copysign(value)
    }
}

/// Rounds runs in place to what integers keep of them: `clamp(rne(x · s)) / s`, `s = largest / amax`, back in the element
/// type; a run of an amax that counts as zero becomes zero. NaN stays NaN. Single-threaded.
pub fn simulate<E: Element>(values: &mut [E], width: usize, magnitudes: &[f32], range: Range) {
    simulate_runs(InstructionSet::detect(), values, width, magnitudes, range);
}

dispatched! {
    fn simulate_runs<E: Element>(values: &mut [E], width: usize, magnitudes: &[f32], range: Range) {
        for (run, amax) in values.chunks_mut(width.max(1)).zip(magnitudes) {
            let (factor, divisor) = factors(*amax, range);
            for value in run {
                *value = E::from_f32(range.round(value.to_f32() * factor) / divisor);
            }
        }
    }
}

/// What simulations multiply with and divide by under a largest magnitude.
#[inline(always)]
pub fn factors(amax: f32, range: Range) -> (f32, f32) {
    let is_zero = amax <= SMALLEST_AMAX;
    let factor = if is_zero { 0.0 } else { range.largest / amax };
    (factor, if is_zero { 1.0 } else { factor })
}

/// Writes one INT8 code per element of a matrix of rows of `columns`: `clamp(rne(f32(w) / scale))`, one scale a row.
///
/// Runs on the caller's thread pool. `source` must be finite, scales finite and positive.
pub fn encode_rows<E: Source>(source: &[E], columns: usize, scales: &[f32], codes: &mut [u8]) {
    let set = InstructionSet::detect();
    let rows = (ROWS_ELEMENTS / columns.max(1)).max(1);
    source
        .par_chunks(rows * columns.max(1))
        .zip(codes.par_chunks_mut(rows * columns.max(1)))
        .zip(scales.par_chunks(rows))
        .for_each(|((source, codes), scales)| encode_some_rows(set, source, columns, scales, codes));
}

dispatched! {
    fn encode_some_rows<E: Source>(source: &[E], columns: usize, scales: &[f32], codes: &mut [u8]) {
        let rows = source.chunks(columns.max(1)).zip(codes.chunks_mut(columns.max(1)));
        for ((source, codes), scale) in rows.zip(scales) {
            for (code, value) in codes.iter_mut().zip(source) {
                *code = Range::INT8.code(value.to_f32() / *scale);
            }
        }
    }
}

/// Writes INT4 codes of a matrix, two rows a byte: the low nibble for the even row, `clamp(rne(f32(w) / scale))` with a
/// scale per block of `runs.width` columns.
///
/// Runs on the caller's thread pool. The number of rows is even, `source` finite, scales finite and positive.
pub fn encode_row_pairs<E: Source>(source: &[E], runs: Runs, scales: &[f32], codes: &mut [u8]) {
    let set = InstructionSet::detect();
    let columns = runs.columns.max(1);
    let pairs = (ROWS_ELEMENTS / (2 * columns)).max(1);
    source
        .par_chunks(2 * pairs * columns)
        .zip(codes.par_chunks_mut(pairs * columns))
        .zip(scales.par_chunks(2 * pairs * runs.across().max(1)))
        .for_each(|((source, codes), scales)| encode_some_pairs(set, source, runs, scales, codes));
}

dispatched! {
    fn encode_some_pairs<E: Source>(source: &[E], runs: Runs, scales: &[f32], codes: &mut [u8]) {
        let (columns, across) = (runs.columns.max(1), runs.across().max(1));
        let pairs = source.chunks_exact(2 * columns).zip(codes.chunks_exact_mut(columns));
        for ((source, codes), scales) in pairs.zip(scales.chunks_exact(2 * across)) {
            let (even, odd) = source.split_at(columns);
            let (even_scales, odd_scales) = scales.split_at(across);
            let blocks = even.chunks(runs.width).zip(odd.chunks(runs.width)).zip(codes.chunks_mut(runs.width));
            for (((even, odd), codes), (even_scale, odd_scale)) in
                blocks.zip(even_scales.iter().zip(odd_scales))
            {
                for ((code, low), high) in codes.iter_mut().zip(even).zip(odd) {
                    let low = Range::INT4.code(low.to_f32() / *even_scale);
                    let high = Range::INT4.code(high.to_f32() / *odd_scale);
                    *code = (low & 15) | (high << 4);
                }
            }
        }
    }
}

/// Writes the values of INT8 codes: `f32(code) · scale`, rounded to the element type, one scale a row.
pub fn decode_rows<E: Element>(codes: &[u8], columns: usize, scales: &[f32], target: &mut [E]) {
    let columns = columns.max(1);
    target.par_chunks_mut(columns).zip(codes.par_chunks(columns)).zip(scales).for_each(
        |((target, codes), scale)| {
            for (value, code) in target.iter_mut().zip(codes) {
                *value = E::from_f32(f32::from(*code as i8) * scale);
            }
        },
    );
}

/// Writes the values of INT4 codes that [`encode_row_pairs`] wrote: `f32(code) · scale`, rounded to the element type.
pub fn decode_row_pairs<E: Element>(codes: &[u8], runs: Runs, scales: &[f32], target: &mut [E]) {
    let (columns, across) = (runs.columns.max(1), runs.across().max(1));
    target
        .par_chunks_exact_mut(2 * columns)
        .zip(codes.par_chunks_exact(columns))
        .zip(scales.par_chunks_exact(2 * across))
        .for_each(|((target, codes), scales)| {
            let (even, odd) = target.split_at_mut(columns);
            for (column, byte) in codes.iter().enumerate() {
                let block = column / runs.width;
                // The nibble is moved to the top and back for its sign.
                even[column] = E::from_f32(f32::from((byte << 4) as i8 >> 4) * scales[block]);
                odd[column] = E::from_f32(f32::from(*byte as i8 >> 4) * scales[across + block]);
            }
        });
}

#[cfg(test)]
#[path = "integer_tests.rs"]
mod tests;
