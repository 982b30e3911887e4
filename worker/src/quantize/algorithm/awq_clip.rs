//! AWQ's search for clipping: magnitudes made smaller, by as much as rounds the weight best (modelopt.md §4.8).
//!
//! Losses are quadratic forms of the weight's error, as in `awq_lite`: of the whole input where one magnitude is clipped,
//! of each block of columns by itself where blocks are.

use std::sync::Arc;

use qlaunch_shared::Result;
use qlaunch_shared::assign::algorithm::AwqClip;
use qlaunch_shared::assign::{Clipped, clipped};
use qlaunch_shared::protocol::NumericPath;
use rayon::prelude::*;

use super::awq_lite::BAND;
use super::dispatch::missing;
use crate::calibrate::{BlockGrams, Gram, Statistics};
use crate::ops::CpuPath;
use crate::ops::cpu::QuadraticForm;
use crate::quantize::{LinearWork, simulate_rows};
use crate::tensor::dtype::{DType, round_as};

/// Clips the magnitudes of every linear whose format has blocks.
///
/// # Errors
/// A linear's input was not seen, or is not finite.
pub(super) fn awq_clip(linears: &mut [LinearWork], options: &AwqClip, statistics: &Statistics) -> Result<()> {
    let path = statistics.numeric_path.unwrap_or_else(NumericPath::detect);
    let mut last: Option<(Arc<Gram>, QuadraticForm)> = None;
    for linear in linears.iter_mut() {
        let Some(kind) = clipped(linear.numerics.weight) else { continue };
        let seen = statistics.inputs.get(&linear.numerics.module);
        let Some(seen) = seen.filter(|seen| seen.gram.is_some() || seen.block_grams.is_some()) else {
            linear.remark("awq_clip", "no_tokens", "nothing is clipped");
            continue;
        };
        seen.magnitude.finite().map_err(|e| e.key(linear.numerics.name.as_str()))?;
        match (kind, &seen.gram, &seen.block_grams) {
            (Clipped::Tensor, Some(gram), _) => {
                let form = match last.take().filter(|(known, _)| Arc::ptr_eq(known, gram)) {
                    Some((_, form)) => form,
                    None => QuadraticForm::rounded(path, &gram.sums, gram.columns),
                };
                clip_tensor(linear, &ratios(options), &form);
                last = Some((Arc::clone(gram), form));
            }
            (Clipped::Blocks(_), _, Some(grams)) => clip_blocks(linear, &ratios(options), grams, path),
            _ => return Err(missing(linear)),
        }
    }
    Ok(())
}

/// The ratios that are tried: in steps up from the smallest, and 1.
fn ratios(options: &AwqClip) -> Vec<f32> {
    let (first, step) = (options.min_clip_ratio, options.shrink_step);
    let count = ((1.0 - first) / step).ceil().max(0.0) as usize;
    let below = (0..count).map(|place| first + place as f64 * step);
    below.map(|ratio| ((ratio * 100.0).round() / 100.0) as f32).chain([1.0]).collect()
}

/// Clips the magnitude of the whole weight.
fn clip_tensor(linear: &mut LinearWork, ratios: &[f32], form: &QuadraticForm) {
    let weight = linear.weight.to_f32();
    let mut best: Option<(f64, f32, f32)> = None;
    for &ratio in ratios {
        let mut tensor = [linear.magnitudes.tensor * ratio];
        round_as(linear.weight.dtype(), &mut tensor);
        let loss = tensor_loss(linear, &weight, tensor[0], form);
        if best.is_none_or(|(known, ..)| loss < known) {
            best = Some((loss, ratio, tensor[0]));
        }
    }
    if let Some((_, ratio, tensor)) = best {
        linear.magnitudes.tensor = tensor;
        linear.remark("awq_clip", "clip_ratio", ratio);
    }
}

/// The squared error of the output over all tokens, where the whole weight's magnitude is `tensor`.
fn tensor_loss(linear: &LinearWork, weight: &[f32], tensor: f32, form: &QuadraticForm) -> f64 {
    let columns = linear.shape()[1].max(1);
    let losses = weight.par_chunks(BAND * columns).map(|band| {
        let mut error = band.to_vec();
        simulate_rows(&mut error, columns, linear.numerics.weight, &linear.magnitudes.fine, tensor);
        subtract(&mut error, band, linear.weight.dtype(), linear.pre_quant_scale.as_deref());
        form.of_rows(&error)
    });
    losses.collect::<Vec<_>>().iter().flatten().sum()
}

/// Leaves of rounded rows the error in the weight's type: as much as the factors on the input let through.
fn subtract(rows: &mut [f32], before: &[f32], dtype: DType, factors: Option<&[f32]>) {
    round_as(dtype, rows);
    rows.iter_mut().zip(before).for_each(|(value, before)| *value -= before);
    if let Some(factors) = factors {
        for row in rows.chunks_mut(factors.len().max(1)) {
            row.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
        }
    }
}

/// Clips the magnitude of each block by itself.
fn clip_blocks(linear: &mut LinearWork, ratios: &[f32], grams: &BlockGrams, path: NumericPath) {
    let ([rows, columns], width) = (linear.shape(), grams.width.max(1));
    let across = columns.div_ceil(width);
    let weight = linear.weight.to_f32();
    let strips: Vec<Vec<(f32, f32)>> = (0..across)
        .into_par_iter()
        .map(|block| {
            let strip = Strip::new(linear, &weight, (rows, columns), (block, width));
            let gram = &grams.sums[block * width * width..][..width * width];
            strip.best(ratios, &QuadraticForm::exact(path, &strip.cut(gram, width), strip.width))
        })
        .collect();
    let mut sum = 0f64;
    for (block, strip) in strips.into_iter().enumerate() {
        for (row, (fine, ratio)) in strip.into_iter().enumerate() {
            if let Some(place) = linear.magnitudes.fine.get_mut(row * across + block) {
                *place = fine;
            }
            sum += f64::from(ratio);
        }
    }
    linear.remark("awq_clip", "mean_clip_ratio", format!("{:.4}", sum / (rows * across).max(1) as f64));
}

/// One block of columns of all rows.
struct Strip<'a> {
    linear: &'a LinearWork,
    /// `[rows, width]`.
    weight: Vec<f32>,
    /// Largest magnitudes, `[rows]`.
    fine: Vec<f32>,
    /// Factors on the input.
    factors: Option<&'a [f32]>,
    width: usize,
}

impl<'a> Strip<'a> {
    fn new(
        linear: &'a LinearWork,
        weight: &[f32],
        (rows, columns): (usize, usize),
        (block, width): (usize, usize),
    ) -> Self {
        let own = block * width..((block + 1) * width).min(columns);
        let across = columns.div_ceil(width);
        let fine =
            (0..rows).map(|row| linear.magnitudes.fine.get(row * across + block).copied().unwrap_or(0.0));
        Self {
            linear,
            weight: weight.chunks(columns.max(1)).flat_map(|row| row[own.clone()].iter().copied()).collect(),
            fine: fine.collect(),
            factors: linear.pre_quant_scale.as_ref().map(|factors| &factors[own.clone()]),
            width: own.len(),
        }
    }

    /// The part of a block's matrix that the strip's columns fill.
    fn cut(&self, gram: &[f32], width: usize) -> Vec<f32> {
        gram.chunks(width).take(self.width).flat_map(|row| row[..self.width].iter().copied()).collect()
    }

    /// The best magnitude of each row, the first of equals, and its ratio.
    fn best(&self, ratios: &[f32], form: &QuadraticForm) -> Vec<(f32, f32)> {
        let (format, tensor) = (self.linear.numerics.weight, self.linear.magnitudes.tensor);
        let mut best: Vec<(f64, f32, f32)> =
            self.fine.iter().map(|fine| (f64::INFINITY, *fine, 1.0)).collect();
        for &ratio in ratios {
            let clipped: Vec<f32> = self.fine.iter().map(|fine| fine * ratio).collect();
            let mut error = self.weight.clone();
            simulate_rows(&mut error, self.width, format, &clipped, tensor);
            subtract(&mut error, &self.weight, self.linear.weight.dtype(), self.factors);
            for ((known, fine), loss) in best.iter_mut().zip(clipped).zip(form.of_rows(&error)) {
                if loss < known.0 {
                    *known = (loss, fine, ratio);
                }
            }
        }
        best.into_iter().map(|(_, fine, ratio)| (fine, ratio)).collect()
    }
}
