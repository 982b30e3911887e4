//! NVFP4 of activations, in place: the rounding that an engine applies to the input of a linear, at every forward.
//!
//! Source: ModelOpt's `fp4_kernel_hopper.py` (modelopt.md §3.5, fake quant of dynamic activations). Its tensor scale is
//! static, from calibration; its block scales are of the values at hand.

use rayon::prelude::*;

use super::super::amax::CHUNK;
use super::super::{e2m1, e4m3};
use super::REACH;
use crate::tensor::dtype::Element;
use crate::tensor::simd::{InstructionSet, dispatched};

/// A tensor scale of zero becomes this one.
const SMALLEST_TENSOR_SCALE: f32 = 1e-12;
/// A block scale below this one becomes 1.
const SMALLEST_BLOCK_SCALE: f32 = 1e-5;

/// What a call has in common for all blocks.
#[derive(Debug, Clone, Copy)]
pub struct Scales {
    tensor: f32,
    /// `fl(6 · tensor)`.
    sixfold: f32,
    block: usize,
}

impl Scales {
    /// Of a tensor of this largest magnitude, which is `reach` times its scale, in blocks of `block` elements.
    pub fn new(amax: f32, reach: f32, block: usize) -> Self {
        let tensor = amax / reach;
        let tensor = if tensor > 0.0 { tensor } else { SMALLEST_TENSOR_SCALE };
        Self { tensor, sixfold: e2m1::LARGEST * tensor, block: block.max(1) }
    }

    /// The tensor's scale, and six times it, rounded.
    pub const fn of_tensor(self) -> (f32, f32) {
        (self.tensor, self.sixfold)
    }
}

/// Rounds rows of `columns` activations in place to what NVFP4 keeps of them, under the calibrated `amax`, in blocks of
/// `block` elements; a last block that is shorter counts as filled up with zeros.
///
/// NaN stays NaN, and makes the scale of its block 1, as in ModelOpt.
pub fn simulate<E: Element>(values: &mut [E], columns: usize, amax: f32, block: usize) {
    let rows = (CHUNK / columns.max(1)).max(1);
    values
        .par_chunks_mut(rows * columns.max(1))
        .for_each(|rows| simulate_alone(rows, columns, Scales::new(amax, REACH, block)));
}

/// As [`simulate`], single-threaded.
pub fn simulate_alone<E: Element>(values: &mut [E], columns: usize, scales: Scales) {
    simulate_rows(InstructionSet::detect(), values, columns.max(1), scales);
}

dispatched! {
    fn simulate_rows<E: Element>(rows: &mut [E], columns: usize, scales: Scales) {
        for row in rows.chunks_mut(columns) {
            // Plain loops: the body of a closure would be compiled without the vector instructions.
            for block in row.chunks_mut(scales.block) {
                // A length known to the compiler makes vectors of the usual block.
                match block.as_mut_array::<16>() {
                    Some(block) => simulate_block(block, scales),
                    None => simulate_block(block, scales),
                }
            }
        }
    }
}

#[inline(always)]
fn simulate_block<E: Element>(block: &mut [E], scales: Scales) {
    // As integers the bits of NaN are above all others, so it wins as it does in torch's `amax`.
    let bits = block.iter().fold(0, |far, value| far.max(value.to_f32().abs().to_bits()));
    let wished = f32::from_bits(bits) / scales.sixfold;
    let bounded = if wished > e4m3::LARGEST { e4m3::LARGEST } else { wished };
    let scale = e4m3::round(bounded) * scales.tensor;
    let scale = if scale >= SMALLEST_BLOCK_SCALE { scale } else { 1.0 };
    for value in block {
        let wide = value.to_f32();
        let rounded = e2m1::round_magnitude(wide.abs() / scale) * scale;
        *value = E::from_f32(if wide >= 0.0 { rounded } else { -rounded });
    }
}
