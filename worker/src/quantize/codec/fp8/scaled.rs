//! FP8 with many scales: per row of a weight, per square, per token of an activation.
//!
//! Where scales are no scalar, ModelOpt's quotient is f32 (modelopt.md §3.3), unlike the one of a per-tensor scale.

use rayon::prelude::*;

use super::super::runs::{ROWS_ELEMENTS, Runs};
use super::super::{Source, e4m3};
use super::{SMALLEST_AMAX, check_lengths};
use crate::tensor::dtype::Element;
use crate::tensor::simd::{InstructionSet, dispatched};
use qlaunch_shared::Result;

/// Writes one code per element of a matrix: `E4M3(f32(w) / scale)`, with the scale of its run.
///
/// Runs on the caller's thread pool. `source` must be finite, scales finite and positive.
///
/// # Errors
/// The slices have different lengths.
pub fn encode_scaled<E: Source>(source: &[E], runs: Runs, scales: &[f32], codes: &mut [u8]) -> Result<()> {
    check_lengths(source.len(), codes.len())?;
    let set = InstructionSet::detect();
    let band = runs.columns.max(1) * runs.height.max(1);
    let bands = (ROWS_ELEMENTS / band).max(1);
    source
        .par_chunks(bands * band)
        .zip(codes.par_chunks_mut(bands * band))
        .zip(scales.par_chunks(bands * runs.across().max(1)))
        .for_each(|((source, codes), scales)| encode_bands(set, source, runs, scales, codes));
    Ok(())
}

dispatched! {
    fn encode_bands<E: Source>(source: &[E], runs: Runs, scales: &[f32], codes: &mut [u8]) {
        let columns = runs.columns.max(1);
        let band = columns * runs.height.max(1);
        let bands = source.chunks(band).zip(codes.chunks_mut(band));
        for ((source, codes), scales) in bands.zip(scales.chunks(runs.across().max(1))) {
            for (source, codes) in source.chunks(columns).zip(codes.chunks_mut(columns)) {
                let own = source.chunks(runs.width.max(1)).zip(codes.chunks_mut(runs.width.max(1)));
                for ((source, codes), scale) in own.zip(scales) {
                    for (code, value) in codes.iter_mut().zip(source) {
                        *code = e4m3::encode(value.to_f32() / *scale);
                    }
                }
            }
        }
    }
}

/// Writes the values of codes: `f32(code) · scale`, rounded to the element type, with the scale of each run.
///
/// # Errors
/// The slices have different lengths.
pub fn decode_scaled<E: Element>(codes: &[u8], runs: Runs, scales: &[f32], target: &mut [E]) -> Result<()> {
    check_lengths(target.len(), codes.len())?;
    let (columns, across) = (runs.columns.max(1), runs.across().max(1));
    let band = columns * runs.height.max(1);
    target.par_chunks_mut(band).zip(codes.par_chunks(band)).zip(scales.par_chunks(across)).for_each(
        |((target, codes), scales)| {
            for (target, codes) in target.chunks_mut(columns).zip(codes.chunks(columns)) {
                for (column, (value, code)) in target.iter_mut().zip(codes).enumerate() {
                    *value = E::from_f32(e4m3::decode(*code) * scales[column / runs.width.max(1)]);
                }
            }
        },
    );
    Ok(())
}

/// Rounds runs in place as [`super::simulate`] does a tensor, each under its own magnitude. Single-threaded.
pub fn simulate_scaled<E: Element>(values: &mut [E], runs: Runs, magnitudes: &[f32]) {
    simulate_bands(InstructionSet::detect(), values, runs, magnitudes);
}

/// What a value is multiplied with before it is rounded, under a largest magnitude. Torch divides a number by a tensor as
/// `reciprocal · number`: two roundings, which searches of scales see.
#[inline(always)]
pub(in crate::quantize) fn factor(amax: f32) -> f32 {
    if amax > SMALLEST_AMAX { 1.0 / amax * e4m3::LARGEST } else { e4m3::LARGEST }
}

dispatched! {
    fn simulate_bands<E: Element>(values: &mut [E], runs: Runs, magnitudes: &[f32]) {
        let columns = runs.columns.max(1);
        let bands = values.chunks_mut(columns * runs.height.max(1));
        for (band, magnitudes) in bands.zip(magnitudes.chunks(runs.across().max(1))) {
            for row in band.chunks_mut(columns) {
                for (run, amax) in row.chunks_mut(runs.width.max(1)).zip(magnitudes) {
                    let factor = factor(*amax);
                    let inverse = 1.0 / factor;
                    for value in run {
                        *value = E::from_f32(e4m3::round(value.to_f32() * factor) * inverse);
                    }
                }
            }
        }
    }
}

/// Rounds every row of `columns` values in place under its own largest magnitude, as engines do with the tokens of an
/// activation. NaN stays NaN. Single-threaded.
pub fn simulate_tokens<E: Source>(values: &mut [E], columns: usize) {
    simulate_some_tokens(InstructionSet::detect(), values, columns);
}

dispatched! {
    fn simulate_some_tokens<E: Source>(values: &mut [E], columns: usize) {
        for row in values.chunks_mut(columns.max(1)) {
            let mut bits = E::Bits::default();
            for value in row.iter() {
                bits = bits.max(value.magnitude_bits());
            }
            let factor = factor(E::of_magnitude_bits(bits));
            let inverse = 1.0 / factor;
            for value in row {
                *value = E::from_f32(e4m3::round(value.to_f32() * factor) * inverse);
            }
        }
    }
}
