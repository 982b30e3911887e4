//! `xᵀ · x` over tokens, and quadratic forms of such matrices.
//!
//! Only tiles that touch the upper triangle are computed: the other half is the same to the bit, since each sum is one chain
//! over tokens in order and products commute.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::kernel::{Begin, KernelElement, MicroKernel, PackFrom, PackedElement};
use super::pack::{LeftLayout, Matrix, RightLayout};
use crate::ops::cpu::scratch::Scratch;
use crate::tensor::dtype::{DType, round};
use crate::tensor::simd::{InstructionSet, dispatched};

/// Panels of rows that one task takes: their operands stay in the second-level cache. So many of any kernel hold a multiple of
/// 8 rows, which are packed at once.
const PANELS: usize = 4;
/// Partial sums of a row, so many that vectors of any width hold some of them.
const LANES: usize = 8;
/// How many times the mean of a diagonal makes a column heavy. At most one in so many is.
const HEAVY: f32 = 16.0;
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
///
/// Off the diagonal, what is multiplied is rounded to an element type: where that is bf16, by at most 2⁻⁸ in each of some
/// thousand terms of either sign. Terms that are few or have one sign stay f32: those of heavy columns, which outliers of
/// activations make, and the diagonal.
#[derive(Debug)]
pub(crate) struct Form<K: MicroKernel, E> {
    kernel: K,
    element: PhantomData<E>,
    /// What is above the diagonal, column panel by column panel, each as deep as its last column; zeros for heavy columns.
    panels: Vec<Vec<K::Packed>>,
    diagonal: Vec<f32>,
    heavy: Vec<Heavy>,
}

/// A column whose element of the diagonal is more than [`HEAVY`] times the mean.
#[derive(Debug)]
struct Heavy {
    column: usize,
    /// Twice what it has in common with each other column, but for heavy ones before it.
    products: Vec<f32>,
}

impl Heavy {
    /// Those of a matrix of which the upper triangle counts.
    fn all_of(matrix: &[f32], diagonal: &[f32]) -> Vec<Self> {
        let columns = diagonal.len();
        let mean = diagonal.iter().sum::<f32>() / columns as f32;
        let mut found: Vec<Self> = Vec::new();
        for column in (0..columns).filter(|column| diagonal[*column] > HEAVY * mean) {
            let place = |at: usize| at.min(column) * columns + at.max(column);
            let mut products: Vec<f32> = (0..columns).map(|at| 2.0 * matrix[place(at)]).collect();
            products[column] = 0.0;
            found.iter().for_each(|before| products[before.column] = 0.0);
            found.push(Self { column, products });
        }
        found
    }
}

impl<K: MicroKernel, E: KernelElement> Form<K, E>
where
    K::Packed: PackFrom<E>,
{
    /// Packs a symmetric matrix `[columns, columns]`; only its upper triangle is read.
    pub(crate) fn new(kernel: K, matrix: &[f32], columns: usize) -> Self {
        let diagonal: Vec<f32> = (0..columns).map(|at| matrix[at * columns + at]).collect();
        let heavy = if E::DTYPE == DType::F32 { Vec::new() } else { Heavy::all_of(matrix, &diagonal) };
        let (count, zero) = (columns.div_ceil(K::COLUMNS), E::from_f32(0.0));
        let panels = (0..count).into_par_iter().map(|panel| {
            let first = panel * K::COLUMNS;
            let depth = (first + K::COLUMNS).min(columns);
            let width = depth - first;
            let mut upper = vec![zero; depth * width];
            for (row, upper) in upper.chunks_mut(width).enumerate() {
                let above = (row + 1).saturating_sub(first).min(width);
                round(&matrix[row * columns + first + above..row * columns + depth], &mut upper[above..]);
            }
            for Heavy { column, .. } in heavy.iter().filter(|heavy| heavy.column < depth) {
                upper[column * width..][..width].fill(zero);
                if let Some(own) = column.checked_sub(first) {
                    upper.chunks_mut(width).for_each(|row| row[own] = zero);
                }
            }
            let mut packed = vec![K::Packed::pack_from(zero); RightLayout::new::<K>(depth).panel_length()];
            RightLayout::pack_from_columns::<K, E>(Matrix::dense(&upper, width), 0, &mut packed);
            packed
        });
        let panels = panels.collect();
        Self { kernel, element: PhantomData, panels, diagonal, heavy }
    }

    /// `e · G · eᵀ` of each row of `rows` `[n, columns]`.
    pub(crate) fn of_rows(&self, rows: &[f32], scratch: &Scratch) -> Vec<f64> {
        let height = PANELS * K::ROWS;
        let tasks = rows.par_chunks(height * self.diagonal.len());
        tasks.flat_map_iter(|rows| self.of_some(rows, scratch)).collect()
    }

    fn of_some(&self, rows: &[f32], scratch: &Scratch) -> Vec<f64> {
        let source = Matrix::dense(rows, self.diagonal.len());
        let layout = LeftLayout::new::<K>(source.rows, source.columns);
        let mut left = scratch.take::<K::Packed>(layout.length::<K>());
        let mut rounded = scratch.take::<E>(rows.len());
        round(rows, &mut rounded);
        layout.pack::<K, E>(Matrix::dense(&rounded, source.columns), 0, &mut left);
        let mut sums = scratch.take::<f32>(source.rows.next_multiple_of(K::ROWS) * K::COLUMNS);
        let (set, mut totals) = (InstructionSet::detect(), vec![[0f64; LANES]; source.rows]);
        for (panel, right) in self.panels.iter().enumerate() {
            layout.multiply(self.kernel, &left, right, &mut sums);
            let columns = panel * K::COLUMNS..((panel + 1) * K::COLUMNS).min(source.columns);
            add_products(set, source, columns, (&sums, K::COLUMNS), &self.diagonal, &mut totals);
        }
        for heavy in &self.heavy {
            add_heavy(set, source, heavy, &mut totals);
        }
        totals.iter().map(|lanes| lanes.iter().sum()).collect()
    }
}

dispatched! {
    /// Adds what some columns count in each row to its totals: values times twice the sums of what is above the diagonal, which
    /// is below it too, and times themselves as the diagonal has it. Rows of sums are the second part of `sums` apart.
    fn add_products(
        rows: Matrix<'_, f32>,
        columns: Range<usize>,
        sums: (&[f32], usize),
        diagonal: &[f32],
        totals: &mut [[f64; LANES]],
    ) {
        let diagonal = &diagonal[columns.clone()];
        for ((row, totals), sums) in totals.iter_mut().enumerate().zip(sums.0.chunks(sums.1)) {
            let values = &rows.row(row)[columns.clone()];
            let (values, last_values) = values.as_chunks::<LANES>();
            let (diagonal, last_diagonal) = diagonal.as_chunks::<LANES>();
            let (sums, last_sums) = sums[..columns.len()].as_chunks::<LANES>();
            // Arrays, of which the compiler makes vectors.
            for ((values, sums), diagonal) in values.iter().zip(sums).zip(diagonal) {
                add_terms(totals, values, sums, diagonal);
            }
            add_terms(totals, last_values, last_sums, last_diagonal);
        }
    }
}

dispatched! {
    /// Adds what a heavy column and the others count together in each row to its totals.
    fn add_heavy(rows: Matrix<'_, f32>, heavy: &Heavy, totals: &mut [[f64; LANES]]) {
        let (products, last_products) = heavy.products.as_chunks::<LANES>();
        for (row, totals) in totals.iter_mut().enumerate() {
            let (values, last_values) = rows.row(row).as_chunks::<LANES>();
            let own = f64::from(rows.row(row)[heavy.column]);
            let mut sums = [0f64; LANES];
            for (values, products) in values.iter().zip(products) {
                multiply(&mut sums, values, products);
            }
            multiply(&mut sums, last_values, last_products);
            totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += own * sum);
        }
    }
}

#[inline(always)]
fn multiply(sums: &mut [f64; LANES], left: &[f32], right: &[f32]) {
    for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
        *sum += f64::from(*left) * f64::from(*right);
    }
}

#[inline(always)]
fn add_terms(totals: &mut [f64; LANES], values: &[f32], sums: &[f32], diagonal: &[f32]) {
    for (((total, value), sum), diagonal) in totals.iter_mut().zip(values).zip(sums).zip(diagonal) {
        let value = f64::from(*value);
        *total += value * (2.0 * f64::from(*sum) + value * f64::from(*diagonal));
    }
}
