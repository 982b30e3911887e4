//! `x · wᵀ` over threads and caches.
//!
//! The right operand is packed block by block of columns, once for all rows; each thread then takes some rows, packs
//! them, and runs the kernel over every panel of columns while the rows stay in its second-level cache.

use std::ops::Range;

use rayon::prelude::*;

use super::kernel::{MicroKernel, PackFrom};
use super::pack::{LeftLayout, Matrix, RightLayout};
use crate::ops::cpu::scratch::Scratch;
use crate::tensor::dtype::Element;
use crate::tensor::simd::{InstructionSet, dispatched};

/// Bytes of packed columns that are made at a time; all rows are read again for each such block.
const RIGHT_BYTES: usize = 32 << 20;
/// Bytes of packed rows that one thread works on. More than a second-level cache is no loss: rows are read in order, and each
/// panel of columns serves more of them.
const LEFT_BYTES: usize = 1280 << 10;
/// Panels of rows that one thread works on at most: enough for each panel of columns to pay for its way from memory.
const LARGEST_TASK: usize = 8;
/// Tasks for each thread, so that no thread waits long for the last one.
const TASKS_PER_THREAD: usize = 8;

/// `x [m, k] · wᵀ [k, n] + bias`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product<'a, E> {
    /// `[m, k]`.
    pub(crate) x: &'a [E],
    /// `[n, k]`.
    pub(crate) w: &'a [E],
    /// `[n]`.
    pub(crate) bias: Option<&'a [E]>,
    /// Elements of a row of either.
    pub(crate) k: usize,
}

/// Computes `product` into `out` `[m, n]`, on the rayon pool that it is called in.
pub(crate) fn linear<K: MicroKernel, E: Element>(
    kernel: K,
    product: Product<'_, E>,
    out: &mut [E],
    scratch: &Scratch,
) where
    K::Packed: PackFrom<E>,
{
    let (x, w) = (Matrix::dense(product.x, product.k), Matrix::dense(product.w, product.k));
    let layout = RightLayout::new::<K>(product.k);
    let bytes_per_panel = layout.panel_length() * size_of::<K::Packed>();
    let panels = (RIGHT_BYTES / bytes_per_panel).max(1);
    let rows_per_task = rows_per_task::<K>(x);
    let set = InstructionSet::detect();
    for first in (0..w.rows).step_by(panels * K::COLUMNS) {
        let columns = (w.rows - first).min(panels * K::COLUMNS);
        let block = Matrix { elements: &w.elements[first * w.stride..], rows: columns, ..w };
        let mut packed = scratch.take::<K::Packed>(layout.length::<K>(columns));
        packed.par_chunks_mut(layout.panel_length()).enumerate().for_each(|(panel, packed)| {
            RightLayout::pack_from_rows::<K, E>(block, panel, packed);
        });
        let bias = product.bias;
        let task = Task { kernel, x, right: &packed, layout, first, columns, bias, scratch, set };
        out.par_chunks_mut(rows_per_task * w.rows).enumerate().for_each(|(index, out)| {
            task.run(index * rows_per_task, out, w.rows);
        });
    }
}

/// Rows that one thread takes at a time. It changes the speed and no bit.
fn rows_per_task<K: MicroKernel>(x: Matrix<'_, impl Copy>) -> usize {
    let panel_bytes = LeftLayout::new::<K>(K::ROWS, x.columns).length::<K>() * size_of::<K::Packed>();
    let fair = x.rows.div_ceil(K::ROWS * rayon::current_num_threads() * TASKS_PER_THREAD);
    K::ROWS * (LEFT_BYTES / panel_bytes).min(LARGEST_TASK).min(fair).max(1)
}

/// What the tasks of one block of columns share.
struct Task<'a, K: MicroKernel, E> {
    kernel: K,
    x: Matrix<'a, E>,
    right: &'a [K::Packed],
    layout: RightLayout,
    /// First column of the block.
    first: usize,
    /// Columns of the block.
    columns: usize,
    bias: Option<&'a [E]>,
    scratch: &'a Scratch,
    /// What may round finished sums; it changes no bit.
    set: InstructionSet,
}

impl<K: MicroKernel, E: Element> Task<'_, K, E>
where
    K::Packed: PackFrom<E>,
{
    /// Computes the block's columns of the rows that `out`, `width` wide, holds.
    fn run(&self, first_row: usize, out: &mut [E], width: usize) {
        let rows = out.len() / width;
        let layout = LeftLayout::new::<K>(rows, self.x.columns);
        let mut left = self.scratch.take::<K::Packed>(layout.length::<K>());
        layout.pack::<K, E>(self.x, first_row, &mut left);
        let mut sums = self.scratch.take::<f32>(rows.next_multiple_of(K::ROWS) * K::COLUMNS);
        for (panel, right) in self.right.chunks(self.layout.panel_length()).enumerate() {
            layout.multiply(self.kernel, &left, right, &mut sums);
            let first = panel * K::COLUMNS;
            let columns = self.first + first..self.first + (first + K::COLUMNS).min(self.columns);
            let bias = self.bias.map(|bias| &bias[columns.clone()]);
            finish(self.set, &sums, K::COLUMNS, bias, out, (width, columns));
        }
    }
}

dispatched! {
    /// Adds the bias to finished sums, whose rows are `stride` apart, and rounds once, into some columns of `out`, whose rows are
    /// as wide as the first part of `place` says.
    fn finish<E: Element>(
        sums: &[f32],
        stride: usize,
        bias: Option<&[E]>,
        out: &mut [E],
        place: (usize, Range<usize>),
    ) {
        let (width, columns) = place;
        for (out, sums) in out.chunks_mut(width).zip(sums.chunks(stride)) {
            let (out, sums) = (&mut out[columns.clone()], &sums[..columns.len()]);
            match bias {
                None => round_run(out, sums),
                Some(bias) => {
                    for ((out, sum), bias) in out.iter_mut().zip(sums).zip(bias) {
                        *out = E::from_f32(*sum + bias.to_f32());
                    }
                }
            }
        }
    }
}

/// Rounds some sums. Runs of a fixed length are what the compiler makes vectors of; a panel is too narrow for its own.
#[inline(always)]
fn round_run<E: Element>(out: &mut [E], sums: &[f32]) {
    const RUN: usize = 16;
    let (out_runs, out_rest) = out.as_chunks_mut::<RUN>();
    let (sum_runs, sum_rest) = sums.as_chunks::<RUN>();
    for (out, sums) in out_runs.iter_mut().zip(sum_runs) {
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = E::from_f32(*sum);
        }
    }
    for (out, sum) in out_rest.iter_mut().zip(sum_rest) {
        *out = E::from_f32(*sum);
    }
}
