//! NVFP4 under given block magnitudes: ModelOpt's static quantizers, four-over-six among them.
//!
//! Source: modelopt.md §3.5, "Block scale, static", and the static block-wise fake quantization of its kernels. Order of
//! operations differs from the dynamic path, so codes may.

use qlaunch_shared::Result;
use rayon::prelude::*;

use super::super::amax::CHUNK;
use super::super::{Source, e2m1, e4m3, fp8};
use super::{Encoded, check_lengths, scale_under};
use crate::tensor::dtype::Element;
use crate::tensor::simd::{InstructionSet, dispatched};

/// What all blocks of a tensor have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FixedScales {
    /// Largest magnitude of the tensor, or of all that an engine fuses with it.
    amax: f32,
    /// Scale of a block that reaches as far as the tensor: 448, or 256 where blocks may reach half as far again.
    ceiling: f32,
    /// Elements that share a scale.
    block: usize,
}

impl FixedScales {
    /// Under a tensor's largest magnitude, whose block's scale is `ceiling`, in blocks of `block` elements.
    pub fn new(amax: f32, ceiling: f32, block: usize) -> Self {
        Self { amax, ceiling, block: block.max(1) }
    }

    /// `weight_scale_2`.
    pub fn scale_2(self) -> f32 {
        scale_under(self.amax, e2m1::LARGEST * self.ceiling)
    }

    /// The tensor's largest magnitude, and the scale of a block that reaches as far.
    pub fn reach(self) -> (f32, f32) {
        (self.amax, self.ceiling)
    }

    /// E4M3 code of the scale of a block of this magnitude.
    #[inline(always)]
    fn code(self, block_amax: f32) -> u8 {
        let own = block_amax / e2m1::LARGEST;
        let own = if own == 0.0 { 1.0 } else { own };
        let wished = own * self.ceiling / (self.amax / e2m1::LARGEST);
        e4m3::encode_magnitude(wished.clamp(e4m3::SMALLEST, e4m3::LARGEST))
    }

    /// What simulations multiply a block's E2M1 values with: FP8's simulation of a sixth of the block's magnitude.
    #[inline(always)]
    pub(in crate::quantize) fn simulated(self, block_amax: f32) -> f32 {
        let largest = self.amax * (e4m3::LARGEST / self.ceiling) / e2m1::LARGEST;
        let factor = fp8::factor(largest);
        e4m3::round(block_amax / e2m1::LARGEST * factor) * (1.0 / factor)
    }
}

/// Writes codes and block scales of whole blocks, each of which has its magnitude in `magnitudes`.
///
/// Runs on the caller's thread pool. `source` must be finite.
///
/// # Errors
/// The slices do not go together.
pub fn encode_fixed<E: Source>(
    source: &[E],
    scales: FixedScales,
    magnitudes: &[f32],
    target: Encoded<'_>,
) -> Result<()> {
    let block = scales.block;
    check_lengths(source.len(), target.codes.len(), magnitudes.len(), block)?;
    check_lengths(source.len(), target.codes.len(), target.scales.len(), block)?;
    let set = InstructionSet::detect();
    let blocks = CHUNK.div_ceil(block);
    source
        .par_chunks(blocks * block)
        .zip(target.codes.par_chunks_mut(blocks * block / 2))
        .zip(target.scales.par_chunks_mut(blocks).zip(magnitudes.par_chunks(blocks)))
        .for_each(|((source, codes), (own, magnitudes))| {
            encode_blocks(set, source, scales, magnitudes, Encoded { codes, scales: own });
        });
    Ok(())
}

dispatched! {
    fn encode_blocks<E: Source>(source: &[E], scales: FixedScales, magnitudes: &[f32], target: Encoded<'_>) {
        let tensor = scales.scale_2();
        let half = scales.block / 2;
        let blocks = source.chunks_exact(scales.block).zip(target.codes.chunks_exact_mut(half));
        for ((source, codes), (code, amax)) in blocks.zip(target.scales.iter_mut().zip(magnitudes)) {
            *code = scales.code(*amax);
            e2m1::encode_over(source, e4m3::decode(*code) * tensor, codes);
        }
    }
}

/// Rounds whole blocks in place to what static NVFP4 keeps of them under these magnitudes. Single-threaded.
pub fn simulate_fixed<E: Element>(values: &mut [E], scales: FixedScales, magnitudes: &[f32]) {
    simulate_blocks(InstructionSet::detect(), values, scales, magnitudes);
}

dispatched! {
    fn simulate_blocks<E: Element>(values: &mut [E], scales: FixedScales, magnitudes: &[f32]) {
        for (block, amax) in values.chunks_mut(scales.block).zip(magnitudes) {
            let scale = scales.simulated(*amax);
            match block.as_mut_array::<16>() {
                Some(block) => simulate_block(block, scale),
                None => simulate_block(block, scale),
            }
        }
    }
}

#[inline(always)]
fn simulate_block<E: Element>(block: &mut [E], scale: f32) {
    let is_zero = scale == 0.0;
    let divisor = if is_zero { 1.0 } else { scale };
    for value in block {
        let wide = value.to_f32();
        let rounded = e2m1::round_magnitude(wide.abs() / divisor) * scale;
        *value = E::from_f32(if wide >= 0.0 { rounded } else { -rounded });
    }
}

#[cfg(test)]
#[path = "fixed_tests.rs"]
mod tests;
