//! Elements to NF4 codes and back, and the same for the magnitudes of their blocks.

use rayon::prelude::*;

use super::super::Source;
use super::maps::{DYNAMIC, QUANTILES, middles};
use super::{BLOCK, NESTED_BLOCK};
use crate::tensor::dtype::Element;
use crate::tensor::simd::{InstructionSet, dispatched};

/// Blocks that one task of the thread pool handles.
const BLOCKS: usize = 1 << 11;
/// What a magnitude is at least, where it is divided by.
const SMALLEST: f32 = 1e-38;
/// The code of zero.
const ZERO: u8 = 7;

/// Magnitudes of blocks, quantized.
#[derive(Debug, Clone, PartialEq)]
pub struct Nested {
    /// One code per block, into `map`.
    pub codes: Vec<u8>,
    /// One scale per 256 codes.
    pub scales: Vec<f32>,
    /// The mean of the magnitudes, which is taken off before.
    pub offset: f32,
    /// What the codes stand for.
    pub map: Vec<f32>,
}

/// Writes the codes of a flat weight, two a byte with the first element in the high nibble, and gives the magnitude of
/// every block. `source` must be finite.
pub fn encode<E: Source>(source: &[E], codes: &mut [u8]) -> Vec<f32> {
    let mut magnitudes = vec![0f32; source.len().div_ceil(BLOCK)];
    let set = InstructionSet::detect();
    let middles = middles::<16, 15>(&QUANTILES);
    source
        .par_chunks(BLOCKS * BLOCK)
        .zip(codes.par_chunks_mut(BLOCKS * BLOCK / 2))
        .zip(magnitudes.par_chunks_mut(BLOCKS))
        .for_each(|((source, codes), magnitudes)| encode_blocks(set, source, &middles, codes, magnitudes));
    magnitudes
}

dispatched! {
    fn encode_blocks<E: Source>(source: &[E], middles: &[f32; 15], codes: &mut [u8], magnitudes: &mut [f32]) {
        let blocks = source.chunks(BLOCK).zip(codes.chunks_mut(BLOCK / 2));
        for ((block, codes), magnitude) in blocks.zip(magnitudes) {
            let mut bits = E::Bits::default();
            for value in block {
                bits = bits.max(value.magnitude_bits());
            }
            *magnitude = E::of_magnitude_bits(bits);
            let divisor = if *magnitude < SMALLEST { SMALLEST } else { *magnitude };
            // bitsandbytes multiplies by the inverse, but divides in a last block that is shorter.
            let (factor, divisor) = if block.len() == BLOCK { (1.0 / divisor, 1.0) } else { (1.0, divisor) };
            let mut own = [ZERO; BLOCK];
            for (code, value) in own.iter_mut().zip(block) {
                *code = place(value.to_f32() * factor / divisor, middles);
            }
            for (byte, pair) in codes.iter_mut().zip(own.as_chunks::<2>().0) {
                *byte = pair[0] << 4 | pair[1];
            }
        }
    }
}

/// How many middles a number is above.
#[inline(always)]
fn place<const MIDDLES: usize>(value: f32, middles: &[f32; MIDDLES]) -> u8 {
    let mut code = 0;
    for middle in middles {
        code += u8::from(value > *middle);
    }
    code
}

/// Writes the values of codes: `quantile · magnitude`, rounded to the element type.
pub fn decode<E: Element>(codes: &[u8], map: &[f32; 16], magnitudes: &[f32], target: &mut [E]) {
    target.par_chunks_mut(BLOCK).with_min_len(64).zip(codes.par_chunks(BLOCK / 2)).zip(magnitudes).for_each(
        |((target, codes), magnitude)| {
            for (pair, byte) in target.chunks_mut(2).zip(codes) {
                for (value, code) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
                    *value = E::from_f32(map[usize::from(code)] * magnitude);
                }
            }
        },
    );
}

impl Nested {
    /// Quantizes magnitudes. Their mean is summed in f64, so that it does not depend on the order; torch sums in f32, and
    /// may differ in the last place (docs/differences.md).
    pub fn encode(magnitudes: &[f32]) -> Self {
        let sum: f64 = magnitudes.iter().map(|value| f64::from(*value)).sum();
        let offset = (sum / magnitudes.len().max(1) as f64) as f32;
        let middles = middles::<256, 255>(&DYNAMIC);
        let mut nested = Self {
            codes: Vec::with_capacity(magnitudes.len()),
            scales: Vec::new(),
            offset,
            map: DYNAMIC.to_vec(),
        };
        for block in magnitudes.chunks(NESTED_BLOCK) {
            let scale = block.iter().fold(0f32, |far, value| far.max((value - offset).abs()));
            let inverse = 1.0 / scale.max(SMALLEST);
            nested.scales.push(scale);
            let code = |value: &f32| {
                let centred = ((value - offset) * inverse).clamp(-1.0, 1.0);
                middles.partition_point(|middle| *middle < centred) as u8
            };
            nested.codes.extend(block.iter().map(code));
        }
        nested
    }

    /// The magnitudes that the codes stand for: `f32(map · scale) + offset`.
    pub fn decode(&self) -> Vec<f32> {
        let scale_of = |at: usize| self.scales.get(at / NESTED_BLOCK).copied().unwrap_or_default();
        let value = |code: u8| self.map.get(usize::from(code)).copied().unwrap_or_default();
        self.codes.iter().enumerate().map(|(at, code)| value(*code) * scale_of(at) + self.offset).collect()
    }
}

/// Rounds flat blocks of 64 in place under their own magnitudes, which are not quantized again. Single-threaded.
pub fn simulate<E: Source>(values: &mut [E]) {
    let middles = middles::<16, 15>(&QUANTILES);
    for block in values.chunks_mut(BLOCK) {
        let magnitude = block.iter().fold(0f32, |far, value| far.max(value.to_f32().abs()));
        let factor = 1.0 / magnitude.max(SMALLEST);
        for value in block {
            let code = place(value.to_f32() * factor, &middles);
            *value = E::from_f32(QUANTILES[usize::from(code)] * magnitude);
        }
    }
}

/// Rounds a flat weight in place to what its stored codes and magnitudes give.
pub fn simulate_nested(values: &mut [f32]) {
    let mut codes = vec![0u8; values.len().div_ceil(2)];
    let magnitudes = Nested::encode(&encode(values, &mut codes)).decode();
    decode(&codes, &QUANTILES, &magnitudes, values);
}
