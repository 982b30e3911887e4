//! How far what an engine multiplies with is from the source's weight: relative squared errors of weight and output.
//!
//! What an engine multiplies with is decoded from the bytes that are written, factors on inputs and low-rank branches
//! included, so that a fault of a codec or of smoothing shows as an error. Sums are f32 in lanes of fixed order within
//! a row, f64 over rows: threads change no bit.

use qlaunch_shared::numerics::Format;
use qlaunch_shared::{Error, Result};
use rayon::prelude::*;

use super::{LinearWork, LowRank, StoredBytes, decode_weight};
use crate::tensor::dtype::widen;
use crate::tensor::host::{HostTensor, TensorView, for_each_dtype};
use crate::tensor::simd::{InstructionSet, dispatched};

/// Rows of a band: the largest side of a square that shares a scale.
const BAND: usize = 128;
/// Elements of a weight that are measured; of larger ones, bands spread evenly over the rows.
const ELEMENTS: usize = 1 << 20;
/// Rows that an output error is taken over: it costs `columns²` multiplications a row.
const OUTPUT_ROWS: usize = 32;
/// Partial sums of a row; a fixed number, so that vector width chooses no order.
const LANES: usize = 16;

/// The source of a linear, before anything was changed.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// `[rows, columns]`.
    pub weight: TensorView<'a>,
    /// What its rows were multiplied with to take over the smoothing of a following linear, `[rows]`.
    pub row_factors: Option<&'a [f32]>,
    /// `XᵀX` of its unsmoothed input over the calibration data, `[columns, columns]`.
    pub gram: Option<&'a [f32]>,
}

/// Relative squared errors of one linear.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Errors {
    /// `‖Ŵ − W‖² / ‖W‖²` over the measured rows.
    pub weight: f64,
    /// `tr(E·G·Eᵀ) / tr(W·G·Wᵀ)` over at most 32 of them; `None` without a Gram matrix.
    pub output: Option<f64>,
    /// Rows measured.
    pub rows_measured: usize,
    /// All rows.
    pub rows: usize,
}

/// What one row contributes.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    error: f64,
    norm: f64,
    output_error: f64,
    output_norm: f64,
}

/// Measures a linear against its source, from the tensors that store it.
///
/// # Errors
/// The stored tensors cannot be decoded, or sizes do not go together.
pub fn measure_errors(linear: &LinearWork, stored: &[StoredBytes], origin: &Origin<'_>) -> Result<Errors> {
    let shape @ [rows, columns] = linear.shape();
    if origin.weight.shape() != shape || origin.gram.is_some_and(|gram| gram.len() != columns * columns) {
        return Err(
            Error::bug("errors are measured against another weight").key(linear.numerics.name.as_str())
        );
    }
    let bands = bands(linear.numerics.weight, shape);
    let rows_measured = bands.iter().map(|band| band.1 - band.0).sum();
    // Every so many measured rows.
    let step = usize::max(rows_measured / OUTPUT_ROWS, 1);
    let mut shares: Vec<Share> = Vec::with_capacity(rows_measured);
    for &(begin, end) in &bands {
        let decoded = decode_band(linear, stored, (begin, end))?;
        let done = shares.len();
        let measured: Vec<Share> = (begin..end)
            .into_par_iter()
            .map(|row| {
                let with_output = (done + row - begin).is_multiple_of(step);
                row_share(linear, &decoded, (row, row - begin), origin, with_output)
            })
            .collect();
        shares.extend(measured);
    }
    let sum = |of: fn(&Share) -> f64| shares.iter().map(of).sum::<f64>();
    Ok(Errors {
        weight: relative(sum(|share| share.error), sum(|share| share.norm)),
        output: origin
            .gram
            .map(|_| relative(sum(|share| share.output_error), sum(|share| share.output_norm))),
        rows_measured,
        rows,
    })
}

/// Nothing lost of nothing is no error.
fn relative(error: f64, norm: f64) -> f64 {
    if error == 0.0 { 0.0 } else { error / norm }
}

/// Rows `begin..end` that are measured: all of them, or bands spread evenly.
fn bands(format: Format, [rows, columns]: [usize; 2]) -> Vec<(usize, usize)> {
    let cut = match format {
        Format::Fp8Block { block } => BAND.is_multiple_of(block as usize),
        // Its blocks run over the flat weight, and scales of scales over many rows.
        Format::Nf4 => false,
        _ => true,
    };
    let all = rows.div_ceil(BAND);
    let wanted = usize::max(ELEMENTS / (BAND * columns.max(1)), 1);
    if !cut || all <= wanted {
        return vec![(0, rows)];
    }
    let band = |place: usize| {
        let begin = place * BAND;
        (begin, rows.min(begin + BAND))
    };
    match wanted {
        1 => vec![band(all / 2)],
        _ => (0..wanted).map(|place| band(place * (all - 1) / (wanted - 1))).collect(),
    }
}

/// Decodes some rows of a linear from the tensors that store it.
fn decode_band(
    linear: &LinearWork,
    stored: &[StoredBytes],
    (begin, end): (usize, usize),
) -> Result<HostTensor> {
    let [rows, columns] = linear.shape();
    let (format, dtype) = (linear.numerics.weight, linear.weight.dtype());
    let whole = format.weight_parts(rows, columns, dtype);
    let slice = |suffix: &str| -> Result<&[u8]> {
        let missing = || Error::bug(format!("`{suffix}` is not stored")).key(linear.numerics.name.as_str());
        let bytes =
            stored.iter().find(|(own, _)| *own == suffix).map(|(_, bytes)| bytes).ok_or_else(missing)?;
        let part = whole.iter().find(|part| part.suffix == suffix).ok_or_else(missing)?;
        let Some(&sides) = part.shape.first().filter(|_| (begin, end) != (0, rows)) else { return Ok(bytes) };
        // Rows of the weight that share one of the part: pairs of INT4, squares of FP8.
        let shared = match format {
            Format::Fp8Block { block } if suffix != "weight" => block as usize,
            _ => rows / sides,
        };
        let length = bytes.len() / sides;
        bytes.get(begin / shared * length..end.div_ceil(shared) * length).ok_or_else(missing)
    };
    decode_weight(format, [end - begin, columns], &slice, dtype)
}

fn row_share(
    linear: &LinearWork,
    decoded: &HostTensor,
    (row, place): (usize, usize),
    origin: &Origin<'_>,
    with_output: bool,
) -> Share {
    let columns = linear.shape()[1];
    let source = wide_row(origin.weight, row, columns);
    let mut served = wide_row(decoded.view(), place, columns);
    if let Some(branch) = &linear.low_rank {
        add_branch(branch, row, &mut served);
    }
    if let Some(factors) = &linear.pre_quant_scale {
        served.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
    }
    if let Some(factor) = origin.row_factors.and_then(|factors| factors.get(row)) {
        served.iter_mut().for_each(|value| *value /= factor);
    }
    served.iter_mut().zip(&source).for_each(|(value, source)| *value -= source);
    let mut share = Share { error: dot(&served, &served), norm: dot(&source, &source), ..Share::default() };
    if let (Some(gram), true) = (origin.gram, with_output) {
        let set = InstructionSet::detect();
        share.output_error = quadratic(set, &served, gram);
        share.output_norm = quadratic(set, &source, gram);
    }
    share
}

/// Adds `b[row] · a`.
fn add_branch(branch: &LowRank, row: usize, served: &mut [f32]) {
    let columns = served.len();
    let rank = branch.a.shape().first().copied().unwrap_or(0);
    let coefficients = wide_row(branch.b.view(), row, rank);
    for (at, coefficient) in coefficients.into_iter().enumerate() {
        let direction = wide_row(branch.a.view(), at, columns);
        served.iter_mut().zip(direction).for_each(|(value, along)| *value += coefficient * along);
    }
}

fn wide_row(matrix: TensorView<'_>, row: usize, columns: usize) -> Vec<f32> {
    for_each_dtype!(Elements, matrix.elements(), elements => {
        let mut wide = vec![0.0; columns];
        widen(&elements[row * columns..(row + 1) * columns], &mut wide);
        wide
    })
}

dispatched! {
    /// `v · G · vᵀ`.
    fn quadratic(v: &[f32], gram: &[f32]) -> f64 {
        let mut sum = 0.0;
        for (value, row) in v.iter().zip(gram.chunks_exact(v.len())) {
            sum += f64::from(*value) * dot(v, row);
        }
        sum
    }
}

#[inline(always)]
fn dot(left: &[f32], right: &[f32]) -> f64 {
    let mut lanes = [0f32; LANES];
    let (left, left_rest) = left.as_chunks::<LANES>();
    let (right, right_rest) = right.as_chunks::<LANES>();
    for (left, right) in left.iter().zip(right) {
        for lane in 0..LANES {
            lanes[lane] += left[lane] * right[lane];
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>() + f64::from(rest)
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
