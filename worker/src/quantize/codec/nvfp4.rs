//! NVFP4: E2M1 codes in blocks along the input, an E4M3 scale per block and an f32 scale per tensor.
//!
//! The definition is ModelOpt's dynamic-block weight path on CPU (modelopt.md §3.5). `steps` computes the same codes of
//! 16-bit elements without a division per element; `simulate` rounds activations in place.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod fixed;
mod simulate;
mod steps;

use std::marker::PhantomData;

use qlaunch_shared::{Error, Result};
use rayon::prelude::*;

pub use self::fixed::{FixedScales, encode_fixed, simulate_fixed};
pub use self::simulate::{Scales, simulate, simulate_alone};
use self::steps::Steps;
use super::amax::CHUNK;
use super::{Source, e2m1, e4m3};
use crate::tensor::dtype::Element;
use crate::tensor::simd::{InstructionSet, dispatched};

/// Elements that share a scale in the format that engines load.
pub const BLOCK: usize = 16;
/// Largest value of a tensor in units of its scale.
pub const REACH: f32 = e2m1::LARGEST * e4m3::LARGEST;

/// The scale of a tensor, and what follows from it for a block.
#[derive(Debug, Clone, Copy, PartialEq)]
struct TensorScale {
    /// `weight_scale_2`.
    scale: f32,
    /// `fl(6 · scale)`: a block's largest magnitude over this is the block's scale.
    sixfold: f32,
}

/// Turns weights of element type `E` into E2M1 codes and E4M3 block scales, under one tensor scale.
#[derive(Debug, Clone)]
pub struct Encoder<E> {
    tensor: TensorScale,
    block: usize,
    steps: Option<Box<Steps>>,
    source: PhantomData<E>,
}

/// Where the codes and block scales of a weight go.
#[derive(Debug)]
pub struct Encoded<'a> {
    /// Two codes a byte, the low nibble for the even column.
    pub codes: &'a mut [u8],
    /// One E4M3 code per block, row-major.
    pub scales: &'a mut [u8],
}

/// Codes and block scales of a weight.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// Two codes a byte, the low nibble for the even column.
    pub codes: &'a [u8],
    /// One E4M3 code per block, row-major.
    pub scales: &'a [u8],
    /// `weight_scale_2`.
    pub scale_2: f32,
    /// Elements that share a scale.
    pub block: usize,
}

/// `weight_scale_2` of a tensor, or of fused tensors with a common largest magnitude: `amax / 2688`.
///
/// ModelOpt makes NaN scales of a weight that is all zeros; here its amax counts as 6, E2M1's largest value, as
/// `export_amax` has it elsewhere (modelopt.md §3.1, docs/differences.md). So does one too small for its scale to be an f32.
pub fn scale_2(amax: f32) -> f32 {
    scale_under(amax, REACH)
}

/// As [`scale_2`], for a tensor whose largest value is `reach` times its scale.
pub fn scale_under(amax: f32, reach: f32) -> f32 {
    let scale = amax / reach;
    if scale > 0.0 { scale } else { e2m1::LARGEST / reach }
}

/// `weight_scale_2` of a tensor as [`scale_under`] makes it, and six times it, rounded.
pub fn scales_under(amax: f32, reach: f32) -> (f32, f32) {
    let TensorScale { scale, sixfold } = TensorScale::new(amax, reach);
    (scale, sixfold)
}

impl TensorScale {
    fn new(amax: f32, reach: f32) -> Self {
        let scale = scale_under(amax, reach);
        Self { scale, sixfold: e2m1::LARGEST * scale }
    }

    /// E4M3 code of a block's scale; 1 for a block of zeros. Free of branches.
    #[inline(always)]
    fn block_code(self, block_amax: f32) -> u8 {
        let wished = block_amax / self.sixfold;
        let wished = if wished == 0.0 { 1.0 } else { wished };
        e4m3::encode_magnitude(wished.clamp(e4m3::SMALLEST, e4m3::LARGEST))
    }

    /// What an E2M1 value of a block is multiplied with.
    #[inline(always)]
    fn block_scale(self, code: u8) -> f32 {
        e4m3::decode(code) * self.scale
    }
}

impl<E: Source> Encoder<E> {
    /// An encoder for a weight whose largest magnitude is at most `amax`, the common one of all weights that an engine
    /// fuses with it, in blocks of `block` elements.
    ///
    /// # Errors
    /// `amax` is negative or not finite, or the block is neither of 16 nor of 32 elements.
    pub fn new(amax: f32, block: usize) -> Result<Self> {
        Self::reaching(amax, block, REACH)
    }

    /// As [`Encoder::new`], for a tensor whose largest value is `reach` times its scale: 2688, or less where something else
    /// has to hold the decoded weight.
    ///
    /// # Errors
    /// As [`Encoder::new`].
    pub fn reaching(amax: f32, block: usize, reach: f32) -> Result<Self> {
        if !amax.is_finite() || amax < 0.0 {
            return Err(Error::bug(format!("an NVFP4 scale cannot be made of the amax {amax}")));
        }
        check_block(block)?;
        let tensor = TensorScale::new(amax, reach);
        Ok(Self { tensor, block, steps: Steps::new::<E>(tensor), source: PhantomData })
    }

    /// `weight_scale_2`.
    pub fn scale_2(&self) -> f32 {
        self.tensor.scale
    }

    /// Writes codes and block scales of a row-major weight of rows of `columns` elements, or of some of its rows.
    ///
    /// Runs on the caller's thread pool. `source` must be finite, as [`super::amax()`] proves.
    ///
    /// # Errors
    /// Blocks do not fill the rows, or the slices do not go together.
    pub fn encode(&self, source: &[E], columns: usize, target: Encoded<'_>) -> Result<()> {
        if !columns.is_multiple_of(self.block) {
            return Err(Error::input(format!(
                "rows of {columns} elements cannot be cut into NVFP4 blocks of {}",
                self.block
            ))
            .hint("exclude the module from quantization, or give it FP8"));
        }
        check_lengths(source.len(), target.codes.len(), target.scales.len(), self.block)?;
        let set = InstructionSet::detect();
        // Blocks do not cross rows, so the rows can be taken as one long row, in chunks of whole blocks.
        let chunk = CHUNK.next_multiple_of(self.block);
        source
            .par_chunks(chunk)
            .zip(target.codes.par_chunks_mut(chunk / 2))
            .zip(target.scales.par_chunks_mut(chunk / self.block))
            .for_each(|((source, codes), scales)| self.encode_chunk(set, source, Encoded { codes, scales }));
        Ok(())
    }

    fn encode_chunk(&self, set: InstructionSet, source: &[E], target: Encoded<'_>) {
        let (mut done, Encoded { codes, scales }) = (0, target);
        if let (Some(steps), Some(halves)) = (&self.steps, E::halves(source)) {
            done = steps.encode::<E>(set, self, halves, Encoded { codes: &mut *codes, scales: &mut *scales });
        }
        let rest = Encoded { codes: &mut codes[done / 2..], scales: &mut scales[done / self.block..] };
        encode_by_definition(set, &source[done..], self, rest);
    }
}

dispatched! {
    /// The definition, word for word; `source` is a whole number of blocks.
    fn encode_by_definition<E: Source>(source: &[E], encoder: &Encoder<E>, target: Encoded<'_>) {
        let block = encoder.block;
        let blocks = source.chunks_exact(block).zip(target.codes.chunks_exact_mut(block / 2));
        for ((source, codes), scale) in blocks.zip(target.scales) {
            let largest = source.iter().fold(E::Bits::default(), |far, value| far.max(value.magnitude_bits()));
            *scale = encoder.tensor.block_code(E::of_magnitude_bits(largest));
            e2m1::encode_over(source, encoder.tensor.block_scale(*scale), codes);
        }
    }
}

/// Writes the values of codes: `E2M1 · fl(f32(E4M3) · scale_2)`, rounded to the element type.
///
/// # Errors
/// The slices do not go together, or the block is neither of 16 nor of 32 elements.
pub fn decode<E: Element>(parts: Parts<'_>, target: &mut [E]) -> Result<()> {
    let block = parts.block;
    check_block(block)?;
    check_lengths(target.len(), parts.codes.len(), parts.scales.len(), block)?;
    let blocks = CHUNK.div_ceil(block);
    target
        .par_chunks_mut(blocks * block)
        .zip(parts.codes.par_chunks(blocks * block / 2))
        .zip(parts.scales.par_chunks(blocks))
        .for_each(|((target, codes), scales)| decode_chunk(target, Parts { codes, scales, block, ..parts }));
    Ok(())
}

fn decode_chunk<E: Element>(target: &mut [E], parts: Parts<'_>) {
    let blocks = target.chunks_exact_mut(parts.block).zip(parts.codes.chunks_exact(parts.block / 2));
    for ((target, codes), scale) in blocks.zip(parts.scales) {
        let scale = e4m3::decode(*scale) * parts.scale_2;
        let values = e2m1::VALUES.map(|value| E::from_f32(value * scale));
        for (pair, byte) in target.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
            *pair = [values[usize::from(byte & 15)], values[usize::from(byte >> 4)]];
        }
    }
}

fn check_block(block: usize) -> Result<()> {
    match block {
        16 | 32 => Ok(()),
        _ => Err(Error::bug(format!("NVFP4 has blocks of 16 or 32 elements, not of {block}"))),
    }
}

fn check_lengths(elements: usize, codes: usize, scales: usize, block: usize) -> Result<()> {
    if codes.checked_mul(2) == Some(elements) && scales.checked_mul(block) == Some(elements) {
        return Ok(());
    }
    Err(Error::bug(format!(
        "{elements} elements, {codes} bytes of NVFP4 codes and {scales} scales of blocks of {block} do not go together"
    )))
}

#[cfg(test)]
#[path = "nvfp4/tests.rs"]
mod tests;
