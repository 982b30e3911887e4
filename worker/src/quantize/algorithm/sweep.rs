//! The best E4M3 scale of every block of static NVFP4, by trying all 126 that are finite and positive (modelopt.md §4.2).
//!
//! All blocks of a tensor choose between the same 126 multipliers. Candidates that cannot win are left out by bounds that
//! f32 arithmetic keeps: a sum of squares is never below one of its terms, as every addition rounds monotonically.

use rayon::prelude::*;

use super::metric::{BlockHessians, sum_of_block};
use crate::quantize::codec::{e2m1, e4m3, nvfp4};
use crate::tensor::simd::{InstructionSet, dispatched};

/// Columns of a block.
const BLOCK: usize = 16;
/// Finite positive E4M3 values.
const CANDIDATES: usize = 126;
/// Rows that one task handles.
const ROWS: usize = 16;

/// What all blocks of a tensor choose from, ascending.
#[derive(Debug, Clone)]
struct Candidates {
    /// Magnitudes of a block: the tensor's times E4M3 / 448.
    magnitudes: [f32; CANDIDATES],
    /// What the simulation multiplies E2M1 values with under them.
    scales: [f32; CANDIDATES],
}

impl Candidates {
    fn new(fixed: nvfp4::FixedScales, tensor: f32) -> Self {
        let magnitudes = std::array::from_fn(|at| tensor * (e4m3::VALUES[at + 1] / e4m3::LARGEST));
        Self { magnitudes, scales: magnitudes.map(|amax| fixed.simulated(amax)) }
    }
}

/// The magnitudes of all blocks of a weight of rows of `columns` values that give the least squared error under a tensor
/// magnitude, or the least loss by `hessians`; the smallest of several.
pub(super) fn sweep(
    weight: &[f32],
    columns: usize,
    (fixed, tensor): (nvfp4::FixedScales, f32),
    hessians: Option<&BlockHessians>,
) -> Vec<f32> {
    let candidates = Candidates::new(fixed, tensor);
    let set = InstructionSet::detect();
    let across = columns / BLOCK;
    let mut best = vec![0f32; weight.len() / BLOCK];
    let rows = weight.par_chunks((ROWS * columns).max(1)).zip(best.par_chunks_mut((ROWS * across).max(1)));
    rows.for_each(|(rows, best)| match hessians {
        Some(hessians) => sweep_by_hessians(set, rows, across, &candidates, hessians, best),
        None => sweep_by_squares(set, rows, &candidates, best),
    });
    best
}

dispatched! {
    fn sweep_by_squares(rows: &[f32], candidates: &Candidates, best: &mut [f32]) {
        for (block, best) in rows.as_chunks::<BLOCK>().0.iter().zip(best) {
            *best = candidates.magnitudes[best_by_squares(block, candidates)];
        }
    }
}

#[inline(always)]
fn best_by_squares(block: &[f32; BLOCK], candidates: &Candidates) -> usize {
    let mut largest = 0f32;
    for value in block {
        largest = largest.max(value.abs());
    }
    if largest == 0.0 {
        return 0;
    }
    // Where the largest value just fits, the loss is small.
    let first =
        candidates.scales.partition_point(|scale| scale * e2m1::LARGEST < largest).min(CANDIDATES - 1);
    let (mut best, mut least) = (first, squares(block, candidates.scales[first]));
    for at in (0..first).rev() {
        let lost = largest - e2m1::LARGEST * candidates.scales[at];
        // Smaller scales clip the largest value even more.
        if lost * lost > least {
            break;
        }
        let loss = squares(block, candidates.scales[at]);
        // The smaller of two equals.
        if loss <= least {
            (best, least) = (at, loss);
        }
    }
    for at in first + 1..CANDIDATES {
        if squares_of_small(block, candidates.scales[at]) > least {
            break;
        }
        let loss = squares(block, candidates.scales[at]);
        if loss < least {
            (best, least) = (at, loss);
        }
    }
    best
}

/// The squared error of a block under a scale.
#[inline(always)]
fn squares(block: &[f32; BLOCK], scale: f32) -> f32 {
    let mut squares = [0f32; BLOCK];
    for (square, value) in squares.iter_mut().zip(block) {
        let value = value.abs();
        let error = value - rounded(value, scale);
        *square = error * error;
    }
    sum_of_block(&squares)
}

/// The squares of values that round to zero under a scale; larger scales lose them and more.
#[inline(always)]
fn squares_of_small(block: &[f32; BLOCK], scale: f32) -> f32 {
    let mut squares = [0f32; BLOCK];
    // Clearly below the middle between zero and the first code, whatever the division rounds to.
    let limit = 0.2499 * scale;
    for (square, value) in squares.iter_mut().zip(block) {
        *square = if value.abs() < limit { value * value } else { 0.0 };
    }
    sum_of_block(&squares)
}

#[inline(always)]
fn rounded(magnitude: f32, scale: f32) -> f32 {
    let divisor = if scale == 0.0 { 1.0 } else { scale };
    e2m1::round_magnitude(magnitude / divisor) * scale
}

dispatched! {
    fn sweep_by_hessians(
        rows: &[f32],
        across: usize,
        candidates: &Candidates,
        hessians: &BlockHessians,
        best: &mut [f32],
    ) {
        for (at, (block, best)) in rows.as_chunks::<BLOCK>().0.iter().zip(best).enumerate() {
            let (matrix, _) = hessians.block(at % across).as_chunks::<BLOCK>();
            let (mut choice, mut least) = (0, f32::INFINITY);
            for (candidate, scale) in candidates.scales.iter().enumerate() {
                let loss = weighted(block, *scale, matrix);
                if loss < least {
                    (choice, least) = (candidate, loss);
                }
            }
            *best = candidates.magnitudes[choice];
        }
    }
}

/// `dᵀ H d` of the differences `d` of a block under a scale.
#[inline(always)]
fn weighted(block: &[f32; BLOCK], scale: f32, matrix: &[[f32; BLOCK]]) -> f32 {
    let mut differences = [0f32; BLOCK];
    for (difference, value) in differences.iter_mut().zip(block) {
        *difference = value - rounded(value.abs(), scale).copysign(*value);
    }
    let mut product = [0f32; BLOCK];
    for (row, left) in matrix.iter().zip(differences) {
        for (product, h) in product.iter_mut().zip(row) {
            *product += left * h;
        }
    }
    let mut terms = [0f32; BLOCK];
    for ((term, product), right) in terms.iter_mut().zip(product).zip(differences) {
        *term = product * right;
    }
    sum_of_block(&terms)
}
