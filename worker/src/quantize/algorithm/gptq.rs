//! GPTQ: each column's rounding error is made good by the columns after it, weighed by what the input makes of them.
//!
//! Source: Frantar et al., 2022, as ModelOpt runs it (modelopt.md §4.10): columns in their own order, scales of max
//! calibration throughout, the weight written back as its quantizer leaves it. Rows do not depend on each other.

use std::sync::Arc;

use qlaunch_shared::Result;
use qlaunch_shared::assign::algorithm::Gptq;
use qlaunch_shared::numerics::{Format, Nvfp4Scales};
use rayon::prelude::*;

use super::cholesky::inverse_factor;
use crate::calibrate::{Gram, Statistics};
use crate::quantize::{LinearWork, simulate_rows};
use crate::tensor::host::HostTensor;
use crate::tensor::simd::{InstructionSet, dispatched};

/// Rows that are handled together, one a lane.
const LANES: usize = 16;

/// The same column of some rows.
type Column = [f32; LANES];

/// The factor of a Gram matrix for weights with these zero columns; none where the matrix is not positive definite.
type Solved = (Arc<Gram>, Vec<usize>, Option<Vec<f32>>);

/// Changes the weights of linears so that their rounded outputs err least; magnitudes stay.
///
/// A linear whose input nobody saw, or whose Hessian is not positive definite, is rounded to nearest, and says so.
///
/// # Errors
/// Sizes do not go together, which is a bug.
pub(super) fn gptq(linears: &mut [LinearWork], options: &Gptq, statistics: &Statistics) -> Result<()> {
    // Linears that read one activation share its matrix, and stand side by side.
    let mut last: Option<Solved> = None;
    for linear in linears {
        let [rows, columns] = linear.shape();
        if columnwise(linear.numerics.weight).is_none() {
            linear.remark("gptq", "fallback", "scales of this format depend on all of the weight");
            continue;
        }
        let seen = statistics.inputs.get(&linear.numerics.module);
        let gram = seen.and_then(|seen| seen.rounded_gram.as_ref().or(seen.gram.as_ref()));
        let Some(gram) = gram.filter(|gram| gram.tokens > 0 && gram.columns == columns) else {
            linear.remark("gptq", "no_tokens", "rounded to nearest");
            continue;
        };
        let weight = linear.rows_f32(0, rows);
        let zeros = zero_columns(&weight, columns);
        if !last.as_ref().is_some_and(|(known, same, _)| Arc::ptr_eq(known, gram) && *same == zeros) {
            // Memory of one factor, not of two.
            drop(last.take());
            let factor = inverse_factor(&damped(gram, &zeros, options.perc_damp), columns);
            last = Some((Arc::clone(gram), zeros, factor));
        }
        match last.as_ref().and_then(|(_, _, factor)| factor.as_ref()) {
            Some(factor) => update(linear, weight, factor, options.block_size.max(1))?,
            None => linear.remark("gptq", "fallback", "the Hessian is not positive definite"),
        }
    }
    Ok(())
}

/// Columns of a weight that hold nothing but zeros.
fn zero_columns(weight: &[f32], columns: usize) -> Vec<usize> {
    let mut is_zero = vec![true; columns];
    for row in weight.chunks(columns.max(1)) {
        is_zero.iter_mut().zip(row).for_each(|(is_zero, value)| *is_zero &= *value == 0.0);
    }
    (0..columns).filter(|column| is_zero[*column]).collect()
}

/// The Hessian, up to a factor that cancels: zero columns stand for themselves, and a share of the mean diagonal is added.
fn damped(gram: &Gram, zeros: &[usize], share: f64) -> Vec<f64> {
    let n = gram.columns;
    let scale = 2.0 / gram.tokens as f64;
    let mut hessian: Vec<f64> = gram.sums.iter().map(|sum| f64::from(*sum) * scale).collect();
    for &zero in zeros {
        hessian[zero * n..][..n].fill(0.0);
        (0..n).for_each(|row| hessian[row * n + zero] = 0.0);
        hessian[zero * n + zero] = 1.0;
    }
    let mean = (0..n).map(|at| hessian[at * n + at]).sum::<f64>() / n.max(1) as f64;
    (0..n).for_each(|at| hessian[at * n + at] += share * mean);
    hessian
}

/// How one column is rounded.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Columnwise {
    /// By itself, under magnitudes that stand: the format as one of matrices with one column.
    Alone(Format),
    /// Among the columns of its block, which is scaled by the values at hand.
    Among(usize),
}

fn columnwise(format: Format) -> Option<Columnwise> {
    Some(match format {
        Format::Fp8 | Format::Int8 | Format::Fp8Channel | Format::Int8Channel => Columnwise::Alone(format),
        Format::Fp8Block { .. } => Columnwise::Alone(Format::Fp8Channel),
        Format::Int4 { .. } => Columnwise::Alone(Format::Int4 { block: 1 }),
        Format::Int4Fp8 { .. } => Columnwise::Alone(Format::Int4Fp8 { block: 1 }),
        Format::Nvfp4 { scales: scales @ (Nvfp4Scales::Static | Nvfp4Scales::FourOverSix), .. } => {
            Columnwise::Alone(Format::Nvfp4 { block: 1, scales })
        }
        Format::Nvfp4 { block, .. } => Columnwise::Among(block as usize),
        Format::Mxfp4 | Format::Mxfp6 | Format::Mxfp8 | Format::Mxint8 => Columnwise::Among(32),
        Format::Fp8Token | Format::Nf4 => return None,
    })
}

/// Rounds a weight column by column and writes it back.
fn update(linear: &mut LinearWork, mut weight: Vec<f32>, factor: &[f32], block: usize) -> Result<()> {
    let [rows, columns] = linear.shape();
    let set = InstructionSet::detect();
    let tiles = weight.par_chunks_mut((LANES * columns).max(1)).enumerate();
    tiles.for_each(|(tile, values)| {
        let mut tile = Tile::new(linear, tile * LANES, values);
        for begin in (0..columns).step_by(block) {
            tile.finish_block(set, factor, begin, usize::min(begin + block, columns));
        }
        tile.store(values);
    });
    linear.weight = HostTensor::new([rows, columns], weight)?.view().cast(linear.weight.dtype())?;
    Ok(())
}

/// Some rows of a weight, column by column.
struct Tile<'a> {
    linear: &'a LinearWork,
    /// Its first row.
    first: usize,
    /// Rows that it has.
    rows: usize,
    /// `[columns]`.
    values: Vec<Column>,
}

impl<'a> Tile<'a> {
    fn new(linear: &'a LinearWork, first: usize, source: &[f32]) -> Self {
        let [_, columns] = linear.shape();
        let rows = source.len() / columns.max(1);
        let mut values = vec![[0f32; LANES]; columns];
        for (lane, row) in source.chunks(columns.max(1)).enumerate() {
            values.iter_mut().zip(row).for_each(|(column, value)| column[lane] = *value);
        }
        Self { linear, first, rows, values }
    }

    fn store(&self, target: &mut [f32]) {
        for (lane, row) in target.chunks_mut(self.values.len().max(1)).enumerate() {
            row.iter_mut().zip(&self.values).for_each(|(value, column)| *value = column[lane]);
        }
    }

    /// Rounds the columns `begin..end`, and moves their errors to all that follow.
    fn finish_block(&mut self, set: InstructionSet, factor: &[f32], begin: usize, end: usize) {
        let mut rounded: Vec<Column> = Vec::with_capacity(end - begin);
        let mut errors: Vec<Column> = Vec::with_capacity(end - begin);
        for at in begin..end {
            let column = self.rounded(at);
            let n = self.values.len();
            let diagonal = factor[at * n + at];
            let mut error = self.values[at];
            error.iter_mut().zip(&column).for_each(|(error, rounded)| *error = (*error - rounded) / diagonal);
            spread(set, &mut self.values[at..end], &error, &factor[at * n..], n, at);
            rounded.push(column);
            errors.push(error);
        }
        self.values[begin..end].copy_from_slice(&rounded);
        let n = self.values.len();
        compensate(set, &mut self.values[end..], &errors, &factor[end * n..], n, begin);
    }

    /// What the quantizer makes of one column of the rows as they are now.
    fn rounded(&self, at: usize) -> Column {
        let format = self.linear.numerics.weight;
        let tensor = self.linear.magnitudes.tensor;
        match columnwise(format) {
            Some(Columnwise::Alone(alone)) => {
                let mut column = self.values[at];
                let fine = self.magnitudes(at);
                simulate_rows(&mut column[..self.rows], 1, alone, &fine[..self.magnitude_count()], tensor);
                column
            }
            Some(Columnwise::Among(block)) => {
                let begin = at / block * block;
                let end = usize::min(begin + block, self.values.len());
                let width = end - begin;
                let mut values = vec![0f32; self.rows * width];
                for (lane, row) in values.chunks_mut(width).enumerate() {
                    row.iter_mut()
                        .zip(&self.values[begin..end])
                        .for_each(|(value, column)| *value = column[lane]);
                }
                simulate_rows(&mut values, width, format, &[], tensor);
                let mut column = [0f32; LANES];
                column.iter_mut().zip(values.chunks(width)).for_each(|(value, row)| *value = row[at - begin]);
                column
            }
            None => self.values[at],
        }
    }

    /// Magnitudes that a column has: one, or one of each row.
    fn magnitude_count(&self) -> usize {
        if matches!(self.linear.numerics.weight, Format::Fp8 | Format::Int8) { 1 } else { self.rows }
    }

    /// The magnitudes of one column, row by row.
    fn magnitudes(&self, at: usize) -> Column {
        let fine = &self.linear.magnitudes.fine;
        let columns = self.values.len();
        let place = |row: usize| match self.linear.numerics.weight {
            Format::Fp8 | Format::Int8 => 0,
            Format::Fp8Block { block } => {
                row / block as usize * columns.div_ceil(block as usize) + at / block as usize
            }
            format => match format.block() {
                Some(block) => row * columns.div_ceil(block) + at / block,
                None => row,
            },
        };
        let mut magnitudes = [0f32; LANES];
        for (lane, magnitude) in magnitudes[..self.rows].iter_mut().enumerate() {
            *magnitude = fine.get(place(self.first + lane)).copied().unwrap_or_default();
        }
        magnitudes
    }
}

dispatched! {
    /// Takes an error in column `at` off that column and the ones after it; `factor` begins with the row of the first.
    fn spread(columns: &mut [Column], error: &Column, factor: &[f32], n: usize, at: usize) {
        for (column, row) in columns.iter_mut().zip(factor.chunks(n)) {
            let weight = row[at];
            for (value, error) in column.iter_mut().zip(error) {
                *value -= error * weight;
            }
        }
    }
}

dispatched! {
    /// Takes the errors of the columns from `begin` on off columns behind them; `factor` begins with the row of the first.
    fn compensate(columns: &mut [Column], errors: &[Column], factor: &[f32], n: usize, begin: usize) {
        for (column, row) in columns.iter_mut().zip(factor.chunks(n)) {
            let mut sums = [0f32; LANES];
            for (error, weight) in errors.iter().zip(&row[begin..]) {
                for (sum, error) in sums.iter_mut().zip(error) {
                    *sum += error * weight;
                }
            }
            for (value, sum) in column.iter_mut().zip(sums) {
                *value -= sum;
            }
        }
    }
}

#[cfg(test)]
#[path = "gptq_tests.rs"]
mod tests;
