//! `xᵀ · x` over tokens, and quadratic forms of such matrices.
//!
//! Only tiles that touch the upper triangle are computed: the other half is the same to the bit, since each sum is one chain
//! over tokens in order and products commute.

use rayon::prelude::*;

use super::kernel::{Begin, KernelElement, MicroKernel, PackFrom, PackedElement};
use super::pack::{LeftLayout, Matrix, RightLayout};
use crate::ops::cpu::scratch::Scratch;

/// Panels of rows that one task takes: their operands stay in the second-level cache. So many of any kernel hold a multiple of
/// 8 rows, which are packed at once.
const PANELS: usize = 4;
/// Columns and rows of a square that is mirrored at a time.
const STRIPE: usize = 64;

/// Adds `xᵀ · x` of `x` `[tokens, columns]` to the upper triangle of `sums` `[columns, columns]`, on the rayon pool that
/// it is called in. Below the diagonal `sums` may hold anything afterwards.
pub(crate) fn add_gram<K: MicroKernel, E: KernelElement>(
    kernel: K,
    x: &[E],
    columns: usize,
    sums: &mut [f32],
    scratch: &Scratch,
) where
    K::Packed: PackFrom<E>,
{
    let tokens = x.len() / columns;
    if tokens == 0 {
        return;
    }
    let layout = RightLayout::new::<K>(tokens);
    let mut right = scratch.take::<K::Packed>(layout.length::<K>(columns));
    right.par_chunks_mut(layout.panel_length()).enumerate().for_each(|(panel, packed)| {
        RightLayout::pack_from_columns::<K, E>(Matrix::dense(x, columns), panel, packed);
    });
    let right: &[K::Packed] = &right;
    let height = PANELS * K::ROWS;
    sums.par_chunks_mut(height * columns).enumerate().for_each(|(task, sums)| {
        let (first, rows) = (task * height, sums.len() / columns);
        let rows_of = LeftLayout::new::<K>(rows, tokens);
        let mut left = scratch.take::<K::Packed>(rows_of.length::<K>());
        rows_of.pack_from_right::<K>((right, layout), first, &mut left);
        let mut tile = scratch.take::<f32>(K::ROWS * K::COLUMNS);
        let begin = first / K::COLUMNS;
        let panels = right.chunks(layout.panel_length()).enumerate().skip(begin);
        for (panel, right) in panels {
            let at = panel * K::COLUMNS..((panel + 1) * K::COLUMNS).min(columns);
            for (row_panel, sums) in sums.chunks_mut(K::ROWS * columns).enumerate() {
                if at.end <= first + row_panel * K::ROWS {
                    continue;
                }
                let blocks = right.chunks(K::Packed::BLOCK * K::COLUMNS).enumerate();
                let operands =
                    blocks.map(|(block, right)| (rows_of.block::<K>(&left, row_panel, block), right));
                if at.len() == K::COLUMNS && sums.len() == K::ROWS * columns {
                    for (left, right) in operands {
                        kernel.accumulate(left, right, Begin::Held, (&mut sums[at.start..], columns));
                    }
                    continue;
                }
                tile.fill(0.0);
                for (tile, sums) in tile.chunks_mut(K::COLUMNS).zip(sums.chunks(columns)) {
                    tile[..at.len()].copy_from_slice(&sums[at.clone()]);
                }
                for (left, right) in operands {
                    kernel.accumulate(left, right, Begin::Held, (&mut tile, K::COLUMNS));
                }
                for (tile, sums) in tile.chunks(K::COLUMNS).zip(sums.chunks_mut(columns)) {
                    sums[at.clone()].copy_from_slice(&tile[..at.len()]);
                }
            }
        }
    });
}

/// Copies what is above the diagonal of a square matrix to below it.
pub(crate) fn mirror(sums: &mut [f32], columns: usize) {
    // Square by square, so that neither side walks through all of memory.
    for top in (0..columns).step_by(STRIPE) {
        for left in (top..columns).step_by(STRIPE) {
            for row in top..(top + STRIPE).min(columns) {
                for column in left.max(row + 1)..(left + STRIPE).min(columns) {
                    sums[column * columns + row] = sums[row * columns + column];
                }
            }
        }
    }
}

/// A symmetric matrix ready for quadratic forms.
#[derive(Debug)]
pub(crate) struct Form<K: MicroKernel> {
    kernel: K,
    /// The upper triangle with half the diagonal, column panel by column panel, each as deep as its last column.
    panels: Vec<Vec<K::Packed>>,
    columns: usize,
}

impl<K: MicroKernel> Form<K>
where
    K::Packed: PackFrom<f32>,
{
    /// Packs a symmetric matrix `[columns, columns]`; only its upper triangle is read.
    pub(crate) fn new(kernel: K, matrix: &[f32], columns: usize) -> Self {
        let count = columns.div_ceil(K::COLUMNS);
        let panels = (0..count).into_par_iter().map(|panel| {
            let first = panel * K::COLUMNS;
            let depth = (first + K::COLUMNS).min(columns);
            let width = depth - first;
            let mut upper = vec![0f32; depth * width];
            for (row, upper) in upper.chunks_mut(width).enumerate() {
                let source = &matrix[row * columns..][..columns];
                for (column, upper) in upper.iter_mut().enumerate() {
                    *upper = match row.cmp(&(first + column)) {
                        std::cmp::Ordering::Less => source[first + column],
                        std::cmp::Ordering::Equal => 0.5 * source[row],
                        std::cmp::Ordering::Greater => 0.0,
                    };
                }
            }
            let mut packed = vec![K::Packed::pack_from(0.0); RightLayout::new::<K>(depth).panel_length()];
            RightLayout::pack_from_columns::<K, f32>(Matrix::dense(&upper, width), 0, &mut packed);
            packed
        });
        Self { kernel, panels: panels.collect(), columns }
    }

    /// `e · G · eᵀ` of each row of `rows` `[n, columns]`.
    pub(crate) fn of_rows(&self, rows: &[f32], scratch: &Scratch) -> Vec<f64> {
        let height = PANELS * K::ROWS;
        let tasks = rows.par_chunks(height * self.columns);
        tasks.flat_map_iter(|rows| self.of_some(rows, scratch)).collect()
    }

    fn of_some(&self, rows: &[f32], scratch: &Scratch) -> Vec<f64> {
        let source = Matrix::dense(rows, self.columns);
        let layout = LeftLayout::new::<K>(source.rows, self.columns);
        let mut left = scratch.take::<K::Packed>(layout.length::<K>());
        layout.pack::<K, f32>(source, 0, &mut left);
        let mut sums = scratch.take::<f32>(source.rows.next_multiple_of(K::ROWS) * K::COLUMNS);
        let mut totals = vec![0f64; source.rows];
        for (panel, right) in self.panels.iter().enumerate() {
            for (block, right) in right.chunks(K::Packed::BLOCK * K::COLUMNS).enumerate() {
                for (row_panel, sums) in sums.chunks_mut(K::ROWS * K::COLUMNS).enumerate() {
                    let left = layout.block::<K>(&left, row_panel, block);
                    self.kernel.accumulate(left, right, Begin::of_block(block), (sums, K::COLUMNS));
                }
            }
            let first = panel * K::COLUMNS;
            for ((row, total), sums) in totals.iter_mut().enumerate().zip(sums.chunks(K::COLUMNS)) {
                let values = &source.row(row)[first..(first + K::COLUMNS).min(self.columns)];
                // Twice the upper triangle is both of them.
                *total += values
                    .iter()
                    .zip(sums)
                    .map(|(value, sum)| 2.0 * f64::from(*value) * f64::from(*sum))
                    .sum::<f64>();
            }
        }
        totals
    }
}
