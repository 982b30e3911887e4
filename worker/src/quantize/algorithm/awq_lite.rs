//! AWQ's search for factors: important channels of the input are scaled up, by as much as rounds the weight best (modelopt.md
//! §4.7).
//!
//! The squared error of the output over all tokens is a quadratic form of the weight's error: `Σ ‖E·x‖² = tr(E·G·Eᵀ)` with
//! `G = XᵀX`, so activations are seen once and not once for every exponent.
//!
//! Losses are ModelOpt's definition in f32: nothing is rounded but the weight to its format and, off the diagonal, what the
//! form multiplies to bf16. ModelOpt rounds means, factors and outputs to the model's type as well; that moves losses by more
//! than exponents differ, so its own choices change with the instruction set it runs on.

use std::sync::Arc;

use qlaunch_shared::Result;
use qlaunch_shared::assign::Smoothing;
use qlaunch_shared::assign::algorithm::AwqLite;
use qlaunch_shared::numerics::Format;
use qlaunch_shared::protocol::NumericPath;
use rayon::prelude::*;

use super::dispatch::missing;
use super::smoothquant::column_amax;
use crate::calibrate::{Channels, Gram, Statistics};
use crate::ops::CpuPath;
use crate::ops::cpu::QuadraticForm;
use crate::quantize::{LinearWork, magnitudes, simulate_weight, smooth};
use crate::tensor::host::{Elements, TensorView};
use crate::tensor::simd::{InstructionSet, dispatched};

/// Rows that are rounded and weighed together: enough to pay for a matrix's way through the caches, and few enough to stay
/// there themselves.
pub(super) const BAND: usize = 128;

/// Finds and applies the factors of every linear that is planned to be smoothed.
///
/// # Errors
/// A linear's input was not seen, or is not finite.
pub(super) fn awq_lite(linears: &mut [LinearWork], options: &AwqLite, statistics: &Statistics) -> Result<()> {
    let path = statistics.numeric_path.unwrap_or_else(NumericPath::detect);
    // Linears that read one activation share its matrix, and stand side by side.
    let mut last: Option<(Arc<Gram>, QuadraticForm)> = None;
    for linear in linears.iter_mut().filter(|linear| linear.numerics.smoothing != Smoothing::None) {
        let seen = statistics.inputs.get(&linear.numerics.module).ok_or_else(|| missing(linear))?;
        seen.magnitude.finite().map_err(|e| e.key(linear.numerics.name.as_str()))?;
        let (Some(channels), Some(gram)) = (&seen.channels, &seen.gram) else { return Err(missing(linear)) };
        let form = match last.take().filter(|(known, _)| Arc::ptr_eq(known, gram)) {
            Some((_, form)) => form,
            None => QuadraticForm::rounded(path, &gram.sums, gram.columns),
        };
        let found = Search::new(linear, channels).best(options, &form)?;
        linear.remark("awq_lite", "alpha", found.alpha);
        smooth(linear, found.factors, channels)?;
        last = Some((Arc::clone(gram), form));
    }
    Ok(())
}

/// The exponents that are tried, as torch counts them.
fn exponents(step: f64) -> Vec<f32> {
    let count = ((1.0 + step) / step).ceil() as usize;
    (0..count).map(|place| (place as f64 * step) as f32).collect()
}

/// One linear whose factors are looked for.
struct Search<'a> {
    linear: &'a LinearWork,
    /// The weight, `[rows, columns]`.
    weight: Vec<f32>,
    /// What the weight is rounded to.
    format: Format,
    /// How much of its block's largest magnitude a column's elements have on average, `[columns]`.
    importance: Vec<f32>,
    /// The largest magnitude of each column, `[columns]`.
    peaks: Vec<f32>,
    /// Mean magnitude of each input channel.
    activity: &'a [f32],
    /// Rows that are rounded and weighed together.
    band: usize,
}

/// What was found.
struct Found {
    alpha: f32,
    /// What inputs are multiplied with, `[columns]`.
    factors: Vec<f32>,
}

impl<'a> Search<'a> {
    fn new(linear: &'a LinearWork, channels: &'a Channels) -> Self {
        let format = match linear.numerics.weight {
            // The search rounds to INT4 alone; the FP8 behind it is scaled to what comes out.
            Format::Int4Fp8 { block } => Format::Int4 { block },
            other => other,
        };
        let weight = linear.weight.to_f32();
        let shape @ [rows, columns] = linear.shape();
        let (importance, peaks) = (importance(shape, &weight, format.block()), column_amax(&weight, columns));
        Self { linear, weight, format, importance, peaks, activity: &channels.mean, band: band(format, rows) }
    }

    /// Tries all exponents; the first of the best ones counts.
    fn best(&self, options: &AwqLite, form: &QuadraticForm) -> Result<Found> {
        let mut best: Option<(f64, f32, Vec<f32>)> = None;
        for alpha in exponents(options.alpha_step) {
            let scale = self.scale(alpha);
            let loss = self.loss(&scale, form)?;
            if best.as_ref().is_none_or(|(known, ..)| loss < *known) {
                best = Some((loss, alpha, scale));
            }
        }
        let (_, alpha, scale) = best.ok_or_else(|| missing(self.linear))?;
        Ok(Found { alpha, factors: scale.iter().map(|scale| 1.0 / scale).collect() })
    }

    /// What columns of the weight are multiplied with for one exponent: `activity^α / importance^(1 − α)`, centred.
    fn scale(&self, alpha: f32) -> Vec<f32> {
        let pairs = self.activity.iter().zip(&self.importance);
        let mut scale: Vec<f32> = pairs
            .map(|(activity, importance)| {
                let ratio = activity.powf(alpha) / (importance.powf(1.0 - alpha) + f32::MIN_POSITIVE);
                ratio.clamp(1e-4, 1e4)
            })
            .collect();
        let largest = scale.iter().copied().fold(0f32, f32::max);
        let smallest = scale.iter().copied().fold(f32::INFINITY, f32::min);
        let centre = (largest * smallest).sqrt();
        scale.iter_mut().for_each(|scale| *scale /= centre);
        scale
    }

    /// The squared error of the output over all tokens, where the weight is rounded under these factors.
    fn loss(&self, scale: &[f32], form: &QuadraticForm) -> Result<f64> {
        // Factors are positive, so the largest of a column stays its largest.
        let largest = self.peaks.iter().zip(scale).map(|(peak, factor)| peak * factor).fold(0f32, f32::max);
        let bands = self.weight.par_chunks((self.band * scale.len()).max(1));
        let losses = bands.map(|band| self.losses(band, scale, largest, form));
        Ok(losses.collect::<Result<Vec<_>>>()?.iter().flatten().sum())
    }

    /// What each row of a band adds to the loss, where the whole weight's largest magnitude under these factors is `largest`.
    fn losses(&self, band: &[f32], scale: &[f32], largest: f32, form: &QuadraticForm) -> Result<Vec<f64>> {
        let shape = [band.len() / scale.len().max(1), scale.len()];
        let (set, mut error) = (InstructionSet::detect(), band.to_vec());
        multiply(set, &mut error, scale);
        let found = magnitudes(TensorView::new(&shape, Elements::F32(&error))?, self.format)?;
        simulate_weight(&mut error, shape, self.format, &found.of_part(self.format, largest))?;
        subtract(set, &mut error, scale, band);
        Ok(form.of_rows(&error))
    }
}

dispatched! {
    /// Multiplies the columns of some rows with factors.
    fn multiply(rows: &mut [f32], factors: &[f32]) {
        for row in rows.chunks_mut(factors.len().max(1)) {
            row.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
        }
    }
}

dispatched! {
    /// Takes factors on columns back, and leaves the difference to what the rows were.
    fn subtract(rows: &mut [f32], factors: &[f32], before: &[f32]) {
        let columns = factors.len().max(1);
        for (row, before) in rows.chunks_mut(columns).zip(before.chunks(columns)) {
            for ((value, factor), before) in row.iter_mut().zip(factors).zip(before) {
                *value = *value / factor - before;
            }
        }
    }
}

/// Rows that are rounded and weighed together of this format. Squares do not reach across them; the scales of NF4 are scaled
/// all over the weight.
fn band(format: Format, rows: usize) -> usize {
    match format {
        Format::Nf4 => rows,
        Format::Fp8Block { block } => BAND.next_multiple_of((block as usize).max(1)),
        _ => BAND,
    }
}

/// The mean over rows of `|w| / (largest |w| of its block + tiny)`; without blocks, a row is one.
fn importance([rows, columns]: [usize; 2], weight: &[f32], block: Option<usize>) -> Vec<f32> {
    let block = block.unwrap_or(columns).max(1);
    let mut sums = vec![0f64; columns];
    for row in weight.chunks(columns.max(1)) {
        for (block, sums) in row.chunks(block).zip(sums.chunks_mut(block)) {
            let largest = block.iter().fold(0f32, |far, value| far.max(value.abs())) + f32::MIN_POSITIVE;
            sums.iter_mut().zip(block).for_each(|(sum, value)| *sum += f64::from(value.abs() / largest));
        }
    }
    sums.iter().map(|sum| (sum / rows.max(1) as f64) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_those_of_torch() {
        let tenths = exponents(0.1);
        assert_eq!(tenths.len(), 11);
        assert_eq!((tenths[0], tenths[1], tenths[10]), (0.0, 0.1, 1.0));
        assert_eq!(exponents(1.0), [0.0, 1.0]);
        assert_eq!(exponents(0.3).len(), 5, "torch ends with the first exponent beyond 1");
    }
}
