//! What the algorithms of an assignment must know of a linear's input.

use super::algorithm::{Algorithm, AwqClip, Calibration};
use super::{Amax, LinearNumerics, Smoothing};
use crate::numerics::{Format, Nvfp4Scales};

/// What is to be collected of a linear's input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Its largest magnitude.
    pub magnitude: bool,
    /// Each channel's largest and summed magnitude.
    pub channels: bool,
    /// Products of channels.
    pub gram: bool,
    /// Products of channels behind the input's quantizer.
    pub rounded_gram: bool,
    /// Products within blocks of so many columns, of so many tokens of each `TOGETHER` samples.
    pub block_grams: Option<(usize, usize)>,
    /// Magnitudes of blocks of 16.
    pub blocks: bool,
}

/// Samples that count as the batch that tokens are picked from: ModelOpt's recipes say how many tokens of a batch they
/// look at, and results must not depend on our batches.
pub const TOGETHER: usize = 8;

impl Needs {
    /// What the algorithms need for one linear.
    pub fn of(calibration: &Calibration, linear: &LinearNumerics) -> Self {
        let calibrated = linear.input.is_some_and(|input| input.amax == Amax::Calibrated);
        let mut needs = Self { magnitude: calibrated, ..Self::default() };
        for step in &calibration.steps {
            needs.add(&step.algorithm, linear);
        }
        // What is computed from sums must be known to be finite.
        needs.magnitude |= needs.channels || needs.gram || needs.rounded_gram || needs.block_grams.is_some();
        needs
    }

    fn add(&mut self, algorithm: &Algorithm, linear: &LinearNumerics) {
        let smoothed = linear.smoothing != Smoothing::None;
        match algorithm {
            Algorithm::Max(_) | Algorithm::Mse(_) => {}
            Algorithm::SmoothQuant(_) => self.channels |= smoothed,
            Algorithm::AwqLite(_) | Algorithm::SvdQuant(_) => self.add_search(smoothed),
            Algorithm::AwqClip(clip) => self.add_clip(clip, linear),
            Algorithm::AwqFull(full) => {
                self.add_search(smoothed);
                self.add_clip(&full.clip, linear);
            }
            Algorithm::Gptq(_) => self.rounded_gram = true,
            // Of every token, and of inputs before their quantizer.
            Algorithm::LocalHessian(search) => self.block_grams = Some((search.block_size, usize::MAX)),
            Algorithm::ActHeadroom(headroom) => {
                self.blocks |= linear.input.is_some_and(|input| matches!(input.format, Format::Nvfp4 { .. }));
                self.add(&headroom.weights, linear);
            }
        }
    }

    fn add_search(&mut self, smoothed: bool) {
        self.channels |= smoothed;
        self.gram |= smoothed;
    }

    fn add_clip(&mut self, clip: &AwqClip, linear: &LinearNumerics) {
        match clipped(linear.weight) {
            Some(Clipped::Tensor) => self.gram = true,
            Some(Clipped::Blocks(width)) => self.block_grams = Some((width, clip.max_tokens_per_batch)),
            None => {}
        }
    }

    /// Whether the sums are large matrices.
    pub const fn is_large(self) -> bool {
        self.gram || self.rounded_gram || self.block_grams.is_some()
    }

    /// What both need.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            magnitude: self.magnitude || other.magnitude,
            channels: self.channels || other.channels,
            gram: self.gram || other.gram,
            rounded_gram: self.rounded_gram || other.rounded_gram,
            block_grams: self.block_grams.or(other.block_grams),
            blocks: self.blocks || other.blocks,
        }
    }
}

/// Which magnitudes of a weight `awq_clip` makes smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clipped {
    /// The one of the tensor.
    Tensor,
    /// Those of blocks of so many columns, each by itself.
    Blocks(usize),
}

/// What `awq_clip` does to a format; formats without blocks stay as they are (modelopt.md §4.8).
pub fn clipped(format: Format) -> Option<Clipped> {
    match format {
        Format::Nvfp4 { scales: Nvfp4Scales::Dynamic | Nvfp4Scales::UnderFp8, .. } => Some(Clipped::Tensor),
        Format::Nvfp4 { block, .. } | Format::Int4 { block } => Some(Clipped::Blocks(block as usize)),
        // INT4 in FP8 is among them: both its scales are found anew after every search.
        _ => None,
    }
}
