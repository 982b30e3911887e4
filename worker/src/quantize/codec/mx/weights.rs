//! Blocks of 32 elements under powers of two: codes of weights, and the same rounding in place.
//!
//! Source: ModelOpt's MXFP4 and MXFP8 tensors and its MX kernel (modelopt.md §3.6).

use qlaunch_shared::{Error, Result};
use rayon::prelude::*;

use super::super::Source;
use super::super::amax::CHUNK;
use super::{BLOCK, MxElement, power};
use crate::tensor::dtype::Element;
use crate::tensor::simd::{InstructionSet, dispatched};

/// Where codes and scales of a weight go.
#[derive(Debug)]
pub struct Encoded<'a> {
    /// A byte a code; of 4-bit codes two a byte, the low nibble for the even column.
    pub codes: &'a mut [u8],
    /// A byte per block: the exponent of its power of two, plus 127.
    pub scales: &'a mut [u8],
}

/// Writes codes and scales of whole blocks: the power of two is the smallest that lets a block's largest magnitude fit.
///
/// Runs on the caller's thread pool. `source` must be finite.
///
/// # Errors
/// The slices do not go together.
pub fn encode<E: Source, T: MxElement>(source: &[E], target: Encoded<'_>) -> Result<()> {
    check_lengths::<T>(source.len(), target.codes.len(), target.scales.len())?;
    let set = InstructionSet::detect();
    source
        .par_chunks(CHUNK)
        .zip(target.codes.par_chunks_mut(CHUNK * T::STORED_BITS / 8))
        .zip(target.scales.par_chunks_mut(CHUNK / BLOCK))
        .for_each(|((source, codes), scales)| {
            encode_blocks::<E, T>(set, source, Encoded { codes, scales });
        });
    Ok(())
}

dispatched! {
    fn encode_blocks<E: Source, T: MxElement>(source: &[E], target: Encoded<'_>) {
        let blocks = source.as_chunks::<BLOCK>().0.iter().zip(target.scales);
        for ((block, byte), codes) in blocks.zip(target.codes.chunks_exact_mut(BLOCK * T::STORED_BITS / 8)) {
            let mut bits = E::Bits::default();
            for value in block {
                bits = bits.max(value.magnitude_bits());
            }
            *byte = power::byte(E::of_magnitude_bits(bits), T::LARGEST);
            let factor = power::inverse(*byte);
            let mut wide = [0u8; BLOCK];
            for (code, value) in wide.iter_mut().zip(block) {
                *code = T::encode(value.to_f32() * factor);
            }
            store(&wide, codes);
        }
    }
}

/// Puts the codes of a block where they belong, two a byte where they are short.
#[inline(always)]
fn store(wide: &[u8; BLOCK], codes: &mut [u8]) {
    if codes.len() == BLOCK {
        codes.copy_from_slice(wide);
    } else {
        for (byte, pair) in codes.iter_mut().zip(wide.as_chunks::<2>().0) {
            *byte = pair[0] | pair[1] << 4;
        }
    }
}

/// Writes the values of codes: `value · 2^e`, rounded to the element type.
///
/// # Errors
/// The slices do not go together.
pub fn decode<E: Element, T: MxElement>(codes: &[u8], scales: &[u8], target: &mut [E]) -> Result<()> {
    check_lengths::<T>(target.len(), codes.len(), scales.len())?;
    let stored = BLOCK * T::STORED_BITS / 8;
    target.par_chunks_mut(BLOCK).with_min_len(256).zip(codes.par_chunks(stored)).zip(scales).for_each(
        |((target, codes), scale)| {
            let scale = power::value(*scale);
            for (at, value) in target.iter_mut().enumerate() {
                let code = match T::STORED_BITS {
                    4 => codes[at / 2] >> (4 * (at % 2)) & 15,
                    _ => codes[at],
                };
                *value = E::from_f32(T::decode(code) * scale);
            }
        },
    );
    Ok(())
}

/// Rounds rows of `columns` values in place; a last block that is shorter counts as filled up with zeros. NaN stays NaN.
/// Single-threaded.
pub fn simulate<E: Element, T: MxElement>(values: &mut [E], columns: usize) {
    simulate_rows::<E, T>(InstructionSet::detect(), values, columns);
}

dispatched! {
    fn simulate_rows<E: Element, T: MxElement>(values: &mut [E], columns: usize) {
        for row in values.chunks_mut(columns.max(1)) {
            for block in row.chunks_mut(BLOCK) {
                match block.as_mut_array::<BLOCK>() {
                    Some(block) => simulate_block::<E, T>(block),
                    None => simulate_block::<E, T>(block),
                }
            }
        }
    }
}

#[inline(always)]
fn simulate_block<E: Element, T: MxElement>(block: &mut [E]) {
    let mut bits = 0;
    for value in block.iter() {
        bits = value.to_f32().abs().to_bits().max(bits);
    }
    let largest = f32::from_bits(bits);
    // Blocks of zeros and blocks that are not finite are rounded under 1.
    let plain = !(largest > 0.0 && largest < f32::INFINITY);
    let byte = if plain { 127 } else { power::byte(largest, T::LARGEST) };
    let (scale, factor) = (power::value(byte), power::inverse(byte));
    for value in block {
        let wide = value.to_f32();
        let rounded = T::round_magnitude(wide.abs() * factor) * scale;
        *value = E::from_f32(if wide < 0.0 { -rounded } else { rounded });
    }
}

fn check_lengths<T: MxElement>(elements: usize, codes: usize, scales: usize) -> Result<()> {
    if codes.checked_mul(8 / T::STORED_BITS) == Some(elements) && scales.checked_mul(BLOCK) == Some(elements)
    {
        return Ok(());
    }
    Err(Error::bug(format!(
        "{elements} elements, {codes} bytes of MX codes and {scales} scales do not go together"
    )))
}
