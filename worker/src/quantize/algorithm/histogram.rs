//! Histograms of magnitudes, and the largest magnitude that they say is worth keeping: by percentile, by entropy or by squared
//! error (modelopt.md §4.5).
//!
//! As in ModelOpt they are functions to be called: its recipes cannot choose between the three, so no algorithm does.

use qlaunch_shared::numerics::Format;
use qlaunch_shared::{Error, Result};
use rayon::prelude::*;

use crate::quantize::simulate_rows;

/// How many magnitudes of a tensor fell into each of equally wide bins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Where the last bin ends.
    top: f32,
    /// At first [`Histogram::BINS`], more when larger magnitudes come.
    counts: Vec<u64>,
}

impl Histogram {
    /// Bins of what is seen first.
    pub const BINS: usize = 2048;
    /// The narrowest range that entropy and squared error try, in bins.
    pub const NARROWEST: usize = 128;

    /// Counts the magnitudes of `values`. What is seen first decides how wide bins are, so that it should not depend on
    /// batches: a sample at a time will do.
    ///
    /// # Errors
    /// A value is not finite.
    pub fn see(&mut self, values: &[f32]) -> Result<()> {
        let largest = values.iter().fold(0f32, |far, value| far.max(value.abs()));
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::input("a histogram of values that are not finite"));
        }
        if values.is_empty() || (self.counts.is_empty() && largest == 0.0) {
            return Ok(());
        }
        if self.counts.is_empty() {
            self.counts = vec![0; Self::BINS];
            self.top = largest;
        } else if largest > self.top {
            let width = self.width();
            let bins = (largest / width).ceil() as usize;
            self.counts.resize(bins.max(self.counts.len()), 0);
            self.top = width * self.counts.len() as f32;
        }
        let bins = self.counts.len();
        for value in values {
            let bin = (value.abs() / self.top * bins as f32) as usize;
            if let Some(count) = self.counts.get_mut(bin.min(bins - 1)) {
                *count += 1;
            }
        }
        Ok(())
    }

    fn width(&self) -> f32 {
        self.top / self.counts.len() as f32
    }

    /// Where bin `bin` begins.
    fn edge(&self, bin: usize) -> f32 {
        if bin == self.counts.len() { self.top } else { bin as f32 * self.width() }
    }

    fn centre(&self, bin: usize) -> f32 {
        (self.edge(bin + 1) + self.edge(bin)) / 2.0
    }

    /// The magnitude that `percent` of all values do not pass, from 0 to 100; `None` if nothing was seen but zeros.
    pub fn percentile(&self, percent: f64) -> Option<f32> {
        let total = self.counts.iter().sum::<u64>() as f64;
        let mut reached = 0.0;
        let bin = self.counts.iter().position(|count| {
            reached += *count as f64 / total;
            reached >= percent / 100.0
        });
        (total > 0.0).then(|| self.edge(bin.unwrap_or(self.counts.len())))
    }

    /// The magnitude at which rounding to integers of `bits` bits keeps most of what the histogram tells: the one with the least
    /// Kullback-Leibler divergence, the largest of equals. `None` if nothing was seen but zeros.
    pub fn entropy(&self, bits: u32) -> Option<f32> {
        // Zeros would outweigh all else.
        let mut counts = self.counts.clone();
        let second = *counts.get(1)?;
        *counts.first_mut()? = second;
        let levels = 1usize << (bits.clamp(2, 32) - 1);
        let divergences: Vec<(usize, f64)> = (Self::NARROWEST..=counts.len())
            .into_par_iter()
            .map(|bins| (bins, divergence(&counts, bins, levels)))
            .collect();
        let best =
            divergences.iter().copied().reduce(|best, other| if other.1 <= best.1 { other } else { best });
        best.map(|(bins, _)| self.edge(bins))
    }

    /// The magnitude under which `format`, one with one scale, rounds the middles of the bins with the least squared error; the
    /// smallest of equals. `None` if nothing was seen but zeros.
    pub fn mse(&self, format: Format) -> Option<f32> {
        let centres: Vec<f32> = (0..self.counts.len()).map(|bin| self.centre(bin)).collect();
        let loss = |amax: f32| {
            let mut rounded = centres.clone();
            simulate_rows(&mut rounded, centres.len(), format, &[amax], 0.0);
            let squares = rounded.iter().zip(&centres).map(|(a, b)| f64::from(a - b).powi(2));
            squares.zip(&self.counts).map(|(square, count)| square * *count as f64).sum::<f64>()
        };
        let tried = centres.par_iter().skip(Self::NARROWEST);
        let losses: Vec<(f32, f64)> = tried.map(|amax| (*amax, loss(*amax))).collect();
        losses
            .into_iter()
            .reduce(|best, other| if other.1 < best.1 { other } else { best })
            .map(|(amax, _)| amax)
    }
}

/// How far the first `bins` bins, all beyond them in the last one, are from what `levels` levels leave of them: each level
/// spreads its values evenly over its bins that have any.
fn divergence(counts: &[u64], bins: usize, levels: usize) -> f64 {
    let level = |bin: usize| bin * levels / bins;
    let mut sums = vec![(0u64, 0u64); levels];
    for (bin, count) in counts[..bins].iter().enumerate().filter(|(_, count)| **count > 0) {
        let sum = &mut sums[level(bin)];
        *sum = (sum.0 + count, sum.1 + 1);
    }
    let clipped: u64 = counts[bins..].iter().sum();
    let kept: u64 = counts[..bins].iter().sum();
    if kept == 0 {
        return f64::INFINITY;
    }
    let mut divergence = 0.0;
    for (bin, count) in counts[..bins].iter().enumerate() {
        let is_last = bin + 1 == bins;
        let told = (count + if is_last { clipped } else { 0 }) as f64 / (kept + clipped) as f64;
        if told > 0.0 {
            let (sum, share) = sums[level(bin)];
            let left = if *count > 0 { sum as f64 / share as f64 / kept as f64 } else { 0.0 };
            divergence += told * (told / left).ln();
        }
    }
    divergence
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Magnitudes of a bell curve with a tail.
    fn values(count: usize) -> Vec<f32> {
        let mut state = 7u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        let mut value = || (0..12).map(|_| uniform()).sum::<f32>() - 6.0;
        let bell: Vec<f32> = (0..count).map(|_| value()).collect();
        bell.iter().enumerate().map(|(at, value)| if at % 500 == 3 { value * 4.0 } else { *value }).collect()
    }

    fn seen(batches: &[&[f32]]) -> Histogram {
        let mut histogram = Histogram::default();
        batches.iter().for_each(|batch| histogram.see(batch).unwrap());
        histogram
    }

    #[test]
    fn bins_grow_by_the_same_width_and_lose_nothing() {
        let histogram = seen(&[&[0.5, -1.0, 0.0], &[2.5, -0.25], &[0.75]]);
        assert_eq!(histogram.counts.len(), 5 * Histogram::BINS / 2);
        assert_eq!(histogram.top, 2.5);
        assert_eq!(histogram.counts.iter().sum::<u64>(), 6);
        // What was the largest of all when it came belongs to the bin below it.
        for (value, bin) in [(0.5, 1024), (1.0, 2047), (0.0, 0), (2.5, 5119), (0.25, 512), (0.75, 1536)] {
            assert_eq!(histogram.counts[bin], 1, "{value}");
        }
        assert_eq!(seen(&[&[0.0, 0.0], &[]]), Histogram::default(), "zeros say nothing about the width");
        assert!(Histogram::default().see(&[1.0, f32::NAN]).is_err());
    }

    #[test]
    fn a_percentile_is_passed_by_no_more_than_the_rest() {
        let values = values(20_000);
        let histogram = seen(&[&values]);
        for percent in [50.0, 90.0, 99.0, 99.99] {
            let found = histogram.percentile(percent).unwrap();
            let passed =
                |bound: f32| values.iter().filter(|value| value.abs() >= bound).count() as f64 / 20_000.0;
            assert!(passed(found + histogram.width()) <= 1.0 - percent / 100.0 + 1e-9, "{percent}");
            assert!(passed(found) >= 1.0 - percent / 100.0 - 1e-9, "{percent}");
        }
        assert_eq!(Histogram::default().percentile(99.0), None);
    }

    /// ModelOpt's definition, word for word, with everything in f64.
    fn divergence_by_definition(counts: &[f64], bins: usize, levels: usize) -> f64 {
        let edges: Vec<f64> = (0..=levels).map(|k| k as f64 * bins as f64 / levels as f64).collect();
        let digit = |bin: usize| edges.iter().filter(|edge| **edge <= bin as f64).count() - 1;
        let group = |wanted: usize| -> Vec<f64> {
            (0..bins).filter(|&b| counts[b] > 0.0 && digit(b) == wanted).map(|b| counts[b]).collect()
        };
        let spread = |bin: usize| {
            let own = group(digit(bin));
            if counts[bin] > 0.0 { own.iter().sum::<f64>() / own.len() as f64 } else { 0.0 }
        };
        let mut reference = counts[..bins].to_vec();
        reference[bins - 1] += counts[bins..].iter().sum::<f64>();
        let spread: Vec<f64> = (0..bins).map(spread).collect();
        let (all, left) = (reference.iter().sum::<f64>(), spread.iter().sum::<f64>());
        let term = |(p, q): (&f64, &f64)| if *p > 0.0 { p / all * (p / all / (q / left)).ln() } else { 0.0 };
        reference.iter().zip(&spread).map(term).sum()
    }

    #[test]
    fn divergences_are_those_of_the_definition() {
        let histogram = seen(&[&values(3_000)]);
        let wide: Vec<f64> = histogram.counts.iter().map(|count| *count as f64).collect();
        for (bins, levels) in [(128, 128), (130, 128), (200, 32), (257, 64), (300, 128)] {
            let (found, expected) =
                (divergence(&histogram.counts, bins, levels), divergence_by_definition(&wide, bins, levels));
            let same = found == expected || (found - expected).abs() <= 1e-12 * expected.abs();
            assert!(same, "{bins} {levels}: {found} {expected}");
        }
    }

    #[test]
    fn entropy_and_squared_error_clip_a_thin_tail() {
        let values = values(20_000);
        let histogram = seen(&[&values]);
        let largest = values.iter().fold(0f32, |far, value| far.max(value.abs()));
        let entropy = histogram.entropy(8).unwrap();
        assert!(entropy < 0.9 * largest && entropy > 1.0, "{entropy} of {largest}");
        // Few levels have more to win by clipping than many.
        let error = |amax: f32| -> f64 {
            let mut rounded = values.clone();
            simulate_rows(&mut rounded, values.len(), Format::Int8, &[amax], 0.0);
            rounded.iter().zip(&values).map(|(a, b)| f64::from(a - b).powi(2)).sum()
        };
        let mse = histogram.mse(Format::Int8).unwrap();
        assert!(
            error(mse) <= 1.01 * error(largest).min(error(0.9 * mse)).min(error(1.1 * mse)),
            "{mse} of {largest}"
        );
        assert!(histogram.mse(Format::Fp8).unwrap() > 0.0);
        assert_eq!(Histogram::default().mse(Format::Int8), None);
        assert_eq!(Histogram::default().entropy(8), None);
    }
}
