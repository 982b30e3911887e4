//! How bad a rounded weight is: squared errors, or squared errors of outputs block by block (modelopt.md §4.2, §4.3).

use qlaunch_shared::numerics::Format;

use crate::calibrate::BlockGrams;
use crate::quantize::codec::Runs;
use crate::tensor::simd::{InstructionSet, dispatched};

/// What a search makes small.
#[derive(Debug, Clone, Copy)]
pub enum Metric<'a> {
    /// `(w − ŵ)²`.
    Squares,
    /// `(w − ŵ)ᵀ H (w − ŵ)` of each block of columns, which counts for every element of the block as in ModelOpt.
    Blocks(&'a BlockHessians),
}

/// The diagonal blocks of a mean `XᵀX`.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockHessians {
    /// Columns of a block.
    pub width: usize,
    /// `[blocks, width, width]`, row-major, f32.
    pub values: Vec<f32>,
}

impl BlockHessians {
    /// Means of sums over tokens; `None` where blocks do not fill the columns or no token was seen.
    pub fn of(grams: &BlockGrams) -> Option<Self> {
        let BlockGrams { columns, width, sums, tokens } = grams;
        if *width == 0 || !columns.is_multiple_of(*width) || *tokens == 0 {
            return None;
        }
        Some(Self { width: *width, values: sums.iter().map(|sum| sum / *tokens as f32).collect() })
    }

    /// The matrix of one block, `[width, width]`.
    pub fn block(&self, block: usize) -> &[f32] {
        let size = self.width * self.width;
        &self.values[block * size..][..size]
    }

    /// The loss of one block of differences.
    pub fn loss(&self, block: usize, differences: &[f32]) -> f32 {
        let hessian = self.block(block);
        let rows = differences.iter().zip(hessian.chunks_exact(self.width));
        rows.map(|(left, row)| left * differences.iter().zip(row).map(|(right, h)| right * h).sum::<f32>())
            .sum()
    }
}

impl Metric<'_> {
    /// The loss of each run of some rows, added to `losses` in the order of [`Runs::magnitudes`]; errors are f32, sums f64 in
    /// the order of rows and columns.
    pub fn add_losses(self, runs: Runs, compared: (&[f32], &[f32]), losses: &mut [f64]) {
        add_losses(InstructionSet::detect(), self, runs, compared, losses);
    }

    /// What every element of one row counts.
    #[inline(always)]
    fn errors(self, source: &[f32], rounded: &[f32], errors: &mut [f32]) {
        for ((error, value), rounded) in errors.iter_mut().zip(source).zip(rounded) {
            *error = value - rounded;
        }
        match self {
            Self::Squares => errors.iter_mut().for_each(|error| *error *= *error),
            Self::Blocks(hessians) => {
                for (block, errors) in errors.chunks_exact_mut(hessians.width).enumerate() {
                    let loss = hessians.loss(block, errors);
                    errors.fill(loss);
                }
            }
        }
    }
}

dispatched! {
    fn add_losses(metric: Metric<'_>, runs: Runs, compared: (&[f32], &[f32]), losses: &mut [f64]) {
        let (columns, across) = (runs.columns.max(1), runs.across().max(1));
        let rows = compared.0.chunks(columns).zip(compared.1.chunks(columns));
        let mut errors = vec![0f32; columns];
        for (row, (source, rounded)) in rows.enumerate() {
            metric.errors(source, rounded, &mut errors);
            let losses = &mut losses[row / runs.height.max(1) * across..][..across];
            for (errors, loss) in errors.chunks(runs.width.max(1)).zip(losses) {
                *loss += sum(errors);
            }
        }
    }
}

/// The sum of a block of 16 in the order of torch on AVX2, in f32: eight lanes of two, then one lane after another. Two
/// magnitudes of a block are often nearly as good, and so the choice is ModelOpt's.
#[inline(always)]
pub(super) fn sum_of_block(values: &[f32; 16]) -> f32 {
    let mut total = 0f32;
    for lane in 0..8 {
        total += values[lane] + values[lane + 8];
    }
    total
}

/// The sum of a run; in f64 with eight partial sums where it is no block of 16, so that its order does not depend on vector
/// width.
#[inline(always)]
fn sum(values: &[f32]) -> f64 {
    if let Some(block) = values.as_array::<16>() {
        return f64::from(sum_of_block(block));
    }
    let (groups, rest) = values.as_chunks::<8>();
    let mut lanes = [0f64; 8];
    for group in groups {
        for (lane, value) in lanes.iter_mut().zip(group) {
            *lane += f64::from(*value);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().copied().map(f64::from).sum::<f64>()
}

/// Where the losses of a format's searched scales are summed: of formats with one searched scale, one run of everything.
pub fn loss_runs(format: Format, columns: usize, is_scalar: bool) -> Runs {
    match (is_scalar, format) {
        (true, _) => Runs { columns, width: columns, height: usize::MAX },
        (_, Format::Fp8Block { block }) => Runs::squares(columns, block as usize),
        (_, format) => format.block().map_or(Runs::rows(columns), |block| Runs::blocks(columns, block)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_go_to_the_run_that_an_element_is_in() {
        let source: Vec<f32> = (0..5 * 7).map(|i| i as f32).collect();
        let rounded = vec![0f32; 35];
        for (width, height) in [(7, 1), (3, 1), (3, 2), (7, usize::MAX)] {
            let runs = Runs { columns: 7, width, height };
            let mut found = vec![0f64; 5usize.div_ceil(height) * runs.across()];
            Metric::Squares.add_losses(runs, (&source, &rounded), &mut found);
            for (at, found) in found.iter().enumerate() {
                let inside =
                    |i: &usize| i / 7 / height == at / runs.across() && i % 7 / width == at % runs.across();
                let expected: usize = (0..35).filter(inside).map(|i| i * i).sum();
                assert_eq!(*found, expected as f64, "{runs:?} {at}");
            }
        }
    }

    #[test]
    fn a_block_hessian_weighs_differences_and_their_products() {
        let mut grams = BlockGrams::new(4, 2);
        grams.see(&[2.0, 1.0, 2.0, 1.0]);
        grams.see(&[0.0, 3.0, 0.0, 3.0]);
        let hessians = BlockHessians::of(&grams).unwrap();
        // [4, 2] and [2, 10], halved.
        assert_eq!(hessians.block(0), [2.0, 1.0, 1.0, 5.0]);
        assert_eq!(hessians.block(1), hessians.block(0));
        assert_eq!(hessians.loss(1, &[1.0, 2.0]), 2.0 + 2.0 + 2.0 + 20.0);
        let mut losses = [0f64; 1];
        let runs = Runs::rows(4);
        Metric::Blocks(&hessians).add_losses(runs, (&[1.0, 2.0, 0.0, 0.0], &[0.0; 4]), &mut losses);
        assert_eq!(losses, [52.0], "the block counts for each of its two elements");
        assert_eq!(BlockHessians::of(&BlockGrams::new(4, 2)), None, "no token");
        let mut ragged = BlockGrams::new(4, 3);
        ragged.see(&[1.0; 4]);
        assert_eq!(BlockHessians::of(&ragged), None);
    }
}
