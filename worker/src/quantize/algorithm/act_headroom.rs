//! Input scales of NVFP4 that leave room above what calibration saw: anchored at a low percentile of block magnitudes.
//!
//! Source: ModelOpt's `NVFP4ActHeadroomCalibrator` (modelopt.md §4.4). The scale is `max(ρ · anchor, upper)`; blocks above
//! the upper percentile are clipped rather than the others lost.

use std::collections::BTreeMap;

use qlaunch_shared::Result;
use qlaunch_shared::assign::Amax;
use qlaunch_shared::assign::algorithm::Headroom;
use qlaunch_shared::model::{Model, QuantizerHome};
use qlaunch_shared::numerics::{Format, Nvfp4Scales};

use crate::calibrate::{LogHistogram, Statistics};
use crate::quantize::LinearWork;

/// Blocks so many times smaller than the largest do not count as the lower end.
const FLOOR_RATIO: f64 = 1e6;

/// Sets the input magnitudes of linears with NVFP4 inputs; the weights are another algorithm's.
///
/// # Errors
/// None today.
pub(super) fn act_headroom(
    linears: &mut [LinearWork],
    options: &Headroom,
    statistics: &Statistics,
    model: &Model,
) -> Result<()> {
    let histograms = histograms(linears, statistics, model);
    for (at, linear) in linears.iter_mut().enumerate() {
        let (Some(largest), Some(histogram)) =
            (linear.input_amax, histograms.get(&quantizer(linear, at, model)))
        else {
            continue;
        };
        let headroom = headroom(histogram, largest, options);
        linear.input_amax = Some(headroom.amax);
        match headroom.found {
            Found::Room => linear.remark("nvfp4_act_headroom", "headroom", headroom.amax / largest),
            Found::TooWide => {
                linear.remark(
                    "nvfp4_act_headroom",
                    "fallback",
                    "block magnitudes are spread too widely for headroom",
                );
            }
            Found::Nothing => linear.remark("nvfp4_act_headroom", "fallback", "nothing but zeros was seen"),
        }
    }
    Ok(())
}

/// What has one input quantizer in ModelOpt: a linear, or a tensor of all fused experts of a layer.
type Quantizer = (usize, String);

fn quantizer(linear: &LinearWork, at: usize, model: &Model) -> Quantizer {
    match model.modules[linear.numerics.module].quantizer_home() {
        QuantizerHome::Experts { container, tensor, .. } => (usize::MAX, format!("{container}.{tensor}")),
        _ => (at, String::new()),
    }
}

/// The blocks that each quantizer of calibrated NVFP4 inputs saw.
fn histograms(
    linears: &[LinearWork],
    statistics: &Statistics,
    model: &Model,
) -> BTreeMap<Quantizer, LogHistogram> {
    let mut histograms: BTreeMap<Quantizer, LogHistogram> = BTreeMap::new();
    for (at, linear) in linears.iter().enumerate() {
        let dynamic = linear.numerics.input.is_some_and(|input| {
            let blocks = matches!(input.format, Format::Nvfp4 { scales: Nvfp4Scales::Dynamic, .. });
            blocks && input.amax == Amax::Calibrated
        });
        let seen = statistics.inputs.get(&linear.numerics.module).and_then(|seen| seen.blocks.as_ref());
        if let (true, Some(seen)) = (dynamic, seen) {
            let known = histograms.entry(quantizer(linear, at, model)).or_insert_with(LogHistogram::empty);
            known.counts.iter_mut().zip(&seen.counts).for_each(|(known, more)| *known += more);
        }
    }
    histograms
}

/// A magnitude, and how it came about.
#[derive(Debug, Clone, Copy, PartialEq)]
struct WithRoom {
    amax: f32,
    found: Found,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// There is room above the blocks that were seen.
    Room,
    /// The lower end is so far below the upper one that none is left.
    TooWide,
    /// There were no blocks to look at: the largest magnitude stays.
    Nothing,
}

/// The magnitude to scale by, from the magnitudes of blocks and the largest one.
fn headroom(histogram: &LogHistogram, largest: f32, options: &Headroom) -> WithRoom {
    let nothing = WithRoom { amax: largest, found: Found::Nothing };
    let upper = if options.upper_percentile >= 100.0 {
        Some(f64::from(largest))
    } else {
        percentile(histogram, options.upper_percentile, 0)
    };
    let Some(upper) = upper.filter(|upper| *upper > 0.0) else { return nothing };
    let floor = LogHistogram::bin((upper / FLOOR_RATIO) as f32);
    let Some(anchor) = percentile(histogram, options.anchor_percentile, floor) else { return nothing };
    let wished = options.rho * anchor;
    if wished <= upper {
        return WithRoom { amax: upper as f32, found: Found::TooWide };
    }
    WithRoom { amax: wished as f32, found: Found::Room }
}

/// The middle of the bin in which a percentile lies, bins below `floor` left out; sums as ModelOpt's, rounded to f32.
fn percentile(histogram: &LogHistogram, percentile: f64, floor: usize) -> Option<f64> {
    let counts = || histogram.counts.iter().enumerate().skip(floor);
    let total = counts().map(|(_, count)| *count as f32).map(f64::from).sum::<f64>() as f32;
    if total <= 0.0 {
        return None;
    }
    let target = (percentile / 100.0) as f32 * total;
    let mut sum = 0f64;
    let reached = counts().find(|(_, count)| {
        sum += f64::from(**count as f32);
        sum as f32 >= target
    });
    let bin = reached.map_or(LogHistogram::BINS - 1, |(bin, _)| bin);
    let (first, width) = (f64::from(LogHistogram::FIRST), -2.0 * f64::from(LogHistogram::FIRST));
    Some((first + (bin as f64 + 0.5) / LogHistogram::BINS as f64 * width).exp2())
}

#[cfg(test)]
mod tests {
    use qlaunch_shared::assign::algorithm::{Algorithm, Max};

    use super::*;

    fn options(anchor: f64, upper: f64, rho: f64) -> Headroom {
        let weights = Box::new(Algorithm::Max(Max::default()));
        Headroom { anchor_percentile: anchor, upper_percentile: upper, rho, weights }
    }

    fn seen(magnitudes: impl IntoIterator<Item = f32>) -> LogHistogram {
        let mut histogram = LogHistogram::empty();
        magnitudes.into_iter().for_each(|magnitude| histogram.see(magnitude));
        histogram
    }

    /// By sorting instead of counting: the value of this rank, to the width of a bin.
    fn ranked(mut magnitudes: Vec<f32>, percentile: f64) -> f32 {
        magnitudes.retain(|magnitude| *magnitude > 0.0);
        magnitudes.sort_by(f32::total_cmp);
        let rank = (percentile / 100.0 * magnitudes.len() as f64).ceil().max(1.0) as usize;
        magnitudes[rank - 1]
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_magnitudes_to_the_width_of_a_bin() {
        let magnitudes: Vec<f32> = (1..5000).map(|i| (i as f32 * 0.0173).sin().abs() * 3.0).collect();
        let histogram = seen(magnitudes.iter().copied());
        for asked in [0.1, 1.0, 25.0, 50.0, 99.0, 99.99, 100.0] {
            let expected = f64::from(ranked(magnitudes.clone(), asked));
            let found = percentile(&histogram, asked, 0).unwrap();
            // A bin is 80/512 octaves wide, and its middle half of that away at most.
            assert!(
                (found / expected).log2().abs() <= 80.0 / 512.0 / 2.0 + 1e-6,
                "{asked}: {found}, {expected}"
            );
        }
    }

    #[test]
    fn the_anchor_makes_room_and_zeros_do_not_count() {
        let blocks = (0..1000).map(|i| if i % 3 == 0 { 0.0 } else { 1.0 + i as f32 / 1000.0 });
        let found = headroom(&seen(blocks), 2.0, &options(1.0, 99.99, 16384.0));
        assert_eq!(found.found, Found::Room);
        assert!((found.amax / 16384.0).log2().abs() < 0.2, "{found:?}");
    }

    #[test]
    fn a_tail_of_tiny_blocks_is_no_lower_end() {
        let blocks = (0..1000).map(|i| if i < 100 { 1e-9 } else { 1.0 });
        let found = headroom(&seen(blocks), 1.0, &options(1.0, 99.99, 16384.0));
        assert!((found.amax / 16384.0).log2().abs() < 0.2, "{found:?}");
    }

    #[test]
    fn blocks_that_are_spread_too_widely_keep_their_upper_end() {
        let blocks = (0..1000).map(|i| if i < 500 { 1e-3 } else { 100.0 });
        let found = headroom(&seen(blocks), 100.0, &options(1.0, 100.0, 1000.0));
        assert_eq!(found, WithRoom { amax: 100.0, found: Found::TooWide });
    }

    #[test]
    fn nothing_seen_keeps_the_largest_magnitude() {
        let found = headroom(&LogHistogram::empty(), 0.0, &options(1.0, 99.99, 16384.0));
        assert_eq!(found, WithRoom { amax: 0.0, found: Found::Nothing });
    }
}
