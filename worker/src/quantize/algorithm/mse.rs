//! Magnitudes with the least error of the rounded weight: ModelOpt's `mse` and the search half of `local_hessian`.
//!
//! Source: modelopt.md §4.2 and §4.3. Either multiples of the largest magnitude are tried, or, of static NVFP4, every E4M3
//! scale of a block.

use std::collections::BTreeMap;

use qlaunch_shared::Result;
use qlaunch_shared::assign::algorithm::Search;
use qlaunch_shared::checkpoint::DType;
use qlaunch_shared::model::{Model, ModuleRole, QuantizerHome};
use qlaunch_shared::numerics::{Format, Grain, Nvfp4Scales};
use rayon::prelude::*;

use super::metric::{BlockHessians, Metric, loss_runs};
use super::sweep::sweep;
use super::tally::Tally;
use crate::quantize::simulate::fixed_scales;
use crate::quantize::{LinearWork, Magnitudes, fine_count, simulate_rows};

/// Elements that one task rounds, in whole rows.
const CHUNK: usize = 1 << 14;

/// Searches the magnitudes of all weights by squared error; those whose format has none to search stay as they are.
///
/// # Errors
/// None today; sizes are those of the linears themselves.
pub fn mse(linears: &mut [LinearWork], search: &Search, model: &Model) -> Result<()> {
    search_all(linears, search, model, &|_| None)
}

/// As [`mse`], by the block Hessians that `hessians` gives, or by squared error where it gives none.
pub(super) fn search_all(
    linears: &mut [LinearWork],
    search: &Search,
    model: &Model,
    hessians: &(dyn Fn(&LinearWork) -> Option<BlockHessians> + Sync),
) -> Result<()> {
    if search.fp8_scale_sweep {
        linears.par_iter_mut().for_each(|linear| sweep_linear(linear, hessians(linear).as_ref()));
        return Ok(());
    }
    let multipliers = multipliers(search);
    let mut groups: BTreeMap<(usize, String), Vec<&mut LinearWork>> = BTreeMap::new();
    for (at, linear) in linears.iter_mut().enumerate() {
        groups.entry(quantizer(linear, at, model)).or_default().push(linear);
    }
    groups.into_values().collect::<Vec<_>>().into_par_iter().for_each(|mut members| {
        match searched(members[0].numerics.weight) {
            Searched::Nothing => {}
            Searched::Fine => {
                for linear in members {
                    let hessians = hessians(linear);
                    search_fine(linear, &multipliers, metric(hessians.as_ref()));
                }
            }
            scalar => search_scalar(&mut members, scalar, &multipliers, hessians),
        }
    });
    Ok(())
}

fn metric(hessians: Option<&BlockHessians>) -> Metric<'_> {
    hessians.map_or(Metric::Squares, Metric::Blocks)
}

/// Which magnitudes of a format a search varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Searched {
    /// The only fine one.
    OnlyFine,
    /// The tensor's, over blocks that are scaled by the values at hand.
    Tensor,
    /// Every fine one by itself.
    Fine,
    /// None: no calibrated scale, or two quantizers in a row, which ModelOpt leaves alone.
    Nothing,
}

fn searched(format: Format) -> Searched {
    match format {
        Format::Nvfp4 { scales: Nvfp4Scales::Dynamic | Nvfp4Scales::UnderFp8, .. } => Searched::Tensor,
        Format::Int4Fp8 { .. } => Searched::Nothing,
        _ if format.grain() == Grain::Tensor => Searched::OnlyFine,
        _ if fine_count(format, [1, 1]) > 0 => Searched::Fine,
        _ => Searched::Nothing,
    }
}

/// What has one quantizer in ModelOpt: a linear, or gate and up of a fused expert together.
fn quantizer(linear: &LinearWork, at: usize, model: &Model) -> (usize, String) {
    let part = &model.modules[linear.numerics.module];
    match (part.quantizer_home(), part.role) {
        (QuantizerHome::Experts { container, tensor, expert }, ModuleRole::Linear { group: Some(_), .. }) => {
            (usize::MAX, format!("{container}.{tensor}.{expert}"))
        }
        _ => (at, String::new()),
    }
}

/// `linspace(start, stop, ceil((stop − start) / step) + 1)` in f32, as torch computes it: the second half from the end.
fn multipliers(search: &Search) -> Vec<f32> {
    let steps =
        ((search.stop_multiplier - search.start_multiplier) / search.step_size).ceil().max(0.0) as usize;
    let (start, stop) = (search.start_multiplier as f32, search.stop_multiplier as f32);
    if steps == 0 {
        return vec![start];
    }
    let step = (stop - start) / steps as f32;
    let point = |at: usize| {
        if at < steps.div_ceil(2) { start + step * at as f32 } else { stop - step * (steps - at) as f32 }
    };
    (0..=steps).map(point).collect()
}

/// One scale for everything; members share it.
fn search_scalar(
    members: &mut [&mut LinearWork],
    scalar: Searched,
    multipliers: &[f32],
    hessians: &(dyn Fn(&LinearWork) -> Option<BlockHessians> + Sync),
) {
    let amax = members.iter().fold(0f32, |amax, linear| amax.max(*scalar_of(&linear.magnitudes, scalar)));
    let hessians: Vec<Option<BlockHessians>> = members.iter().map(|linear| hessians(linear)).collect();
    let tried = |linear: &LinearWork, multiplier: f32| {
        let mut tried = Magnitudes { fine: Vec::new(), tensor: linear.magnitudes.tensor };
        set_scalar(&mut tried, scalar, amax * multiplier);
        tried
    };
    let counts_alone = scalar == Searched::OnlyFine && hessians.iter().all(Option::is_none);
    let losses: Vec<f64> = match counts_alone.then(|| Tally::of(members)).flatten() {
        Some(tally) => {
            let (linear, format) = (&members[0], members[0].numerics.weight);
            multipliers.par_iter().map(|multiplier| tally.loss(format, &tried(linear, *multiplier))).collect()
        }
        None => sums_of_bands(members, &hessians, multipliers, &tried),
    };
    let multiplier = multipliers[argmin(losses.iter().copied())];
    for linear in members {
        let kept = kept(linear, amax * multiplier);
        set_scalar(&mut linear.magnitudes, scalar, kept);
        linear.remark("mse", "multiplier", multiplier);
    }
}

/// The losses of all candidates, of all weights together; `tried` makes a candidate's magnitudes.
fn sums_of_bands(
    members: &[&mut LinearWork],
    hessians: &[Option<BlockHessians>],
    multipliers: &[f32],
    tried: &(dyn Fn(&LinearWork, f32) -> Magnitudes + Sync),
) -> Vec<f64> {
    let mut losses = vec![0f64; multipliers.len()];
    for (linear, hessians) in members.iter().zip(hessians) {
        let of_candidate = |_: &[f32], multiplier: f32| tried(linear, multiplier);
        for band in band_losses(linear, metric(hessians.as_ref()), multipliers, &of_candidate) {
            for (sum, loss) in losses.iter_mut().zip(band.losses.iter().flatten()) {
                *sum += loss;
            }
        }
    }
    losses
}

fn scalar_of(magnitudes: &Magnitudes, scalar: Searched) -> &f32 {
    match scalar {
        Searched::OnlyFine => magnitudes.fine.first().unwrap_or(&0.0),
        _ => &magnitudes.tensor,
    }
}

fn set_scalar(magnitudes: &mut Magnitudes, scalar: Searched, amax: f32) {
    match scalar {
        Searched::OnlyFine => magnitudes.fine = vec![amax],
        _ => magnitudes.tensor = amax,
    }
}

/// One scale per row, block or square.
fn search_fine(linear: &mut LinearWork, multipliers: &[f32], metric: Metric<'_>) {
    let by_row = linear.numerics.weight.grain() == Grain::Row;
    let tensor = linear.magnitudes.tensor;
    // ModelOpt tries the magnitudes of rows in the weight's own type.
    let tried = |amax: f32, multiplier: f32| {
        if by_row { kept(linear, amax * multiplier) } else { amax * multiplier }
    };
    let bands = band_losses(linear, metric, multipliers, &|fine, multiplier| Magnitudes {
        fine: fine.iter().map(|amax| tried(*amax, multiplier)).collect(),
        tensor,
    });
    let mut chosen = Vec::with_capacity(linear.magnitudes.fine.len());
    let mut counts = vec![0usize; multipliers.len()];
    for band in &bands {
        for (run, amax) in band.fine.iter().enumerate() {
            let best = argmin(band.losses.iter().map(|losses| losses[run]));
            counts[best] += 1;
            chosen.push(tried(*amax, multipliers[best]));
        }
    }
    linear.magnitudes.fine = chosen;
    linear.remark("mse", "multipliers", counted(multipliers, &counts));
}

/// Multipliers with how many scales chose each, as `1×12 1.5×4`.
fn counted(multipliers: &[f32], counts: &[usize]) -> String {
    let used = multipliers.iter().zip(counts).filter(|(_, count)| **count > 0);
    used.map(|(multiplier, count)| format!("{multiplier}×{count}")).collect::<Vec<_>>().join(" ")
}

/// Some rows with the losses of every candidate for each of their scales.
struct Band<'a> {
    fine: &'a [f32],
    /// `[candidates][scales]`.
    losses: Vec<Vec<f64>>,
}

/// The losses of all candidates, band by band of rows; `tried` makes the magnitudes of a band's candidate.
fn band_losses<'a>(
    linear: &'a LinearWork,
    metric: Metric<'_>,
    multipliers: &[f32],
    tried: &(dyn Fn(&[f32], f32) -> Magnitudes + Sync),
) -> Vec<Band<'a>> {
    let format = linear.numerics.weight;
    let [rows, columns] = linear.shape();
    let is_scalar = searched(format) != Searched::Fine;
    let runs = loss_runs(format, columns, is_scalar);
    let height = if let Format::Fp8Block { block } = format { block as usize } else { 1 };
    let band = (CHUNK / columns.max(1)).max(1).next_multiple_of(height.max(1));
    (0..rows.div_ceil(band))
        .into_par_iter()
        .map(|at| {
            let (begin, end) = (at * band, usize::min((at + 1) * band, rows));
            let fine = if is_scalar {
                &linear.magnitudes.fine[..]
            } else {
                let first = fine_count(format, [begin, columns]);
                &linear.magnitudes.fine[first..first + fine_count(format, [end - begin, columns])]
            };
            let source = linear.rows_f32(begin, end);
            let mut rounded = vec![0f32; source.len()];
            let count = if is_scalar { 1 } else { fine.len() };
            let losses = multipliers.iter().map(|multiplier| {
                let Magnitudes { fine, tensor } = tried(fine, *multiplier);
                rounded.copy_from_slice(&source);
                simulate_rows(&mut rounded, columns, format, &fine, tensor);
                let mut losses = vec![0f64; count];
                metric.add_losses(runs, (&source, &rounded), &mut losses);
                losses
            });
            Band { fine, losses: losses.collect() }
        })
        .collect()
}

/// Where the smallest value stands first.
fn argmin(values: impl Iterator<Item = f64>) -> usize {
    let smaller = |(best, least), (at, value)| if value < least { (at, value) } else { (best, least) };
    values.enumerate().fold((0, f64::INFINITY), smaller).0
}

/// A magnitude in the type that ModelOpt keeps it in: the weight's own, f32 of blocks and squares.
fn kept(linear: &LinearWork, amax: f32) -> f32 {
    match linear.weight.dtype() {
        DType::BF16 => half::bf16::from_f32(amax).to_f32(),
        DType::F16 => half::f16::from_f32(amax).to_f32(),
        _ => amax,
    }
}

/// Every E4M3 scale of static NVFP4; other formats stay as they are.
fn sweep_linear(linear: &mut LinearWork, hessians: Option<&BlockHessians>) {
    let Format::Nvfp4 { block: block @ 16, scales } = linear.numerics.weight else { return };
    let tensor = linear.magnitudes.tensor;
    let Some(fixed) = fixed_scales(scales, tensor, block as usize) else { return };
    let [rows, columns] = linear.shape();
    let hessians = hessians.filter(|hessians| hessians.width == block as usize);
    linear.magnitudes.fine = sweep(&linear.rows_f32(0, rows), columns, (fixed, tensor), hessians);
}

#[cfg(test)]
#[path = "mse_tests.rs"]
mod tests;
