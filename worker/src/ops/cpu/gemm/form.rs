//! Quadratic forms `e · G · eᵀ` of symmetric matrices, for many rows `e` at once.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::gram::PANELS;
use super::kernel::{KernelElement, MicroKernel, PackFrom};
use super::pack::{LeftLayout, Matrix, RightLayout};
use crate::ops::cpu::scratch::Scratch;
use crate::tensor::dtype::{DType, round};
use crate::tensor::simd::{InstructionSet, dispatched};

/// Partial sums of a row, so many that vectors of any width hold some of them.
const LANES: usize = 8;
/// How many times the mean of a diagonal makes a column heavy. At most one in so many is.
const HEAVY: f32 = 16.0;

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
