//! What calibration learnt: of every linear input, and of keys and values.

use std::collections::BTreeMap;
use std::sync::Arc;

use qlaunch_shared::assign::{Assignment, Needs};
use qlaunch_shared::protocol::NumericPath;

use super::cache::CacheStatistics;
use super::silent::StandIn;
use crate::network::CacheSide;
use crate::ops::Magnitude;

/// What was seen of a model's activations. Nothing in it depends on how samples were put into batches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// By module index of the linear that reads the activation.
    pub inputs: BTreeMap<usize, InputStatistics>,
    /// Keys, with their positions in them, by decoder layer.
    pub keys: BTreeMap<usize, CacheStatistics>,
    /// Values, by decoder layer.
    pub values: BTreeMap<usize, CacheStatistics>,
    /// Tokens that each expert of a decoder layer got.
    pub routed: BTreeMap<usize, Vec<u64>>,
    /// Experts that got none, by decoder layer and number; there after [`Statistics::settle_silent`].
    pub silent: BTreeMap<(usize, u32), StandIn>,
    /// What the activations were computed on, and what is computed from them keeps to; the best of this machine where no
    /// activation was seen.
    pub numeric_path: Option<NumericPath>,
}

/// What was seen of one linear's input `[tokens, columns]`; only the first two are always there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InputStatistics {
    /// Largest magnitude, in the model's own type and therefore exact.
    pub magnitude: Magnitude,
    /// Tokens that were seen.
    pub tokens: u64,
    /// Each channel by itself: AWQ, SmoothQuant.
    pub channels: Option<Arc<Channels>>,
    /// Of the input as it is: AWQ. Linears that read one activation share one matrix.
    pub gram: Option<Arc<Gram>>,
    /// Of the input as its quantizer leaves it: GPTQ, local Hessians.
    pub rounded_gram: Option<Arc<Gram>>,
    /// Of blocks of columns of some tokens: clipping of block magnitudes.
    pub block_grams: Option<Arc<BlockGrams>>,
    /// Magnitudes of blocks of 16: headroom of NVFP4 inputs.
    pub blocks: Option<LogHistogram>,
}

/// Magnitudes channel by channel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Channels {
    /// Largest magnitude of each channel, `[columns]`.
    pub amax: Vec<f32>,
    /// Mean magnitude of each channel, `[columns]`: of every 8 samples, and the mean of these. That is what ModelOpt makes of
    /// batches of 8, whatever our batches are.
    pub mean: Vec<f32>,
}

/// Sums of products of channels over tokens: `XᵀX`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gram {
    /// Channels.
    pub columns: usize,
    /// `[columns, columns]`, row-major, symmetric; sums run over tokens in order.
    pub sums: Vec<f32>,
    /// Tokens that were summed.
    pub tokens: u64,
}

/// Sums of products of channels within blocks of columns, over tokens that stand evenly in the calibration data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlockGrams {
    /// Columns.
    pub columns: usize,
    /// Columns of a block; the last one may be narrower.
    pub width: usize,
    /// One square `[width, width]` after the other; those of a narrower block are filled up with zeros.
    pub sums: Vec<f32>,
    /// Tokens that were summed.
    pub tokens: u64,
}

impl BlockGrams {
    /// Nothing summed yet.
    pub fn new(columns: usize, width: usize) -> Self {
        Self { columns, width, sums: vec![0.0; columns.div_ceil(width.max(1)) * width * width], tokens: 0 }
    }

    /// Adds one token `[columns]`.
    pub fn see(&mut self, token: &[f32]) {
        let squares = self.sums.chunks_mut((self.width * self.width).max(1));
        for (block, sums) in token.chunks(self.width.max(1)).zip(squares) {
            for (left, sums) in block.iter().zip(sums.chunks_mut(self.width)) {
                sums.iter_mut().zip(block).for_each(|(sum, right)| *sum += left * right);
            }
        }
        self.tokens += 1;
    }

    /// Adds the sums of another.
    pub fn add(&mut self, other: &Self) {
        self.sums.iter_mut().zip(&other.sums).for_each(|(left, right)| *left += right);
        self.tokens += other.tokens;
    }
}

/// How many magnitudes fell between each two powers: bins are equally wide in the logarithm (modelopt.md §4.4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogHistogram {
    /// 512 bins over log2 from -40 to 40.
    pub counts: Vec<u64>,
}

impl Gram {
    /// Adds the sums of another.
    pub fn add(&mut self, other: &Self) {
        self.sums.iter_mut().zip(&other.sums).for_each(|(left, right)| *left += right);
        self.tokens += other.tokens;
    }

    /// The sums of both.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.add(&other);
        self
    }
}

impl LogHistogram {
    /// Bins.
    pub const BINS: usize = 512;
    /// The logarithm that the first bin begins with, and minus that where the last ends.
    pub const FIRST: f32 = -40.0;

    /// Nothing counted.
    pub fn empty() -> Self {
        Self { counts: vec![0; Self::BINS] }
    }

    /// Counts one magnitude; zero is none.
    pub fn see(&mut self, magnitude: f32) {
        if magnitude > 0.0
            && let Some(count) = self.counts.get_mut(Self::bin(magnitude))
        {
            *count += 1;
        }
    }

    /// The bin of a magnitude above zero; the outer ones take what lies beyond them.
    pub fn bin(magnitude: f32) -> usize {
        let place = (magnitude.log2() - Self::FIRST) / (-2.0 * Self::FIRST) * Self::BINS as f32;
        (place.floor().max(0.0) as usize).min(Self::BINS - 1)
    }

    /// The magnitude in the middle of a bin, on the logarithmic scale.
    pub fn middle(bin: usize) -> f64 {
        let first = f64::from(Self::FIRST);
        (first + (bin as f64 + 0.5) / Self::BINS as f64 * (-2.0 * first)).exp2()
    }
}

impl Statistics {
    /// Adds one batch's view of a linear input.
    pub fn see_input(&mut self, module: usize, seen: Magnitude, tokens: u64) {
        let known = self.inputs.entry(module).or_default();
        known.magnitude = known.magnitude.merge(seen);
        known.tokens += tokens;
    }

    /// Forgets what only algorithms read of these linears: large matrices.
    pub fn forget(&mut self, is_done: impl Fn(usize) -> bool) {
        for (_, seen) in self.inputs.iter_mut().filter(|(module, _)| is_done(**module)) {
            (seen.gram, seen.rounded_gram, seen.block_grams) = (None, None, None);
        }
    }

    /// Leaves of some linears what an assignment needs: what others need must
    /// not change what is made of it.
    pub fn restrict(&mut self, assignment: &Assignment, is_concerned: impl Fn(usize) -> bool) {
        self.inputs.retain(|&module, seen| {
            if !is_concerned(module) {
                return true;
            }
            let Some(linear) = assignment.linear(module) else { return false };
            let needs = Needs::of(&assignment.calibration, linear);
            seen.channels.take_if(|_| !needs.channels);
            seen.gram.take_if(|_| !needs.gram);
            seen.rounded_gram.take_if(|_| !needs.rounded_gram);
            seen.block_grams.take_if(|_| needs.block_grams.is_none());
            seen.blocks.take_if(|_| !needs.blocks);
            needs != Needs::default()
        });
    }

    /// What was seen of keys or values so far.
    pub fn cache(&mut self, layer: usize, side: CacheSide) -> &mut CacheStatistics {
        let map = match side {
            CacheSide::Key => &mut self.keys,
            CacheSide::Value => &mut self.values,
        };
        map.entry(layer).or_default()
    }

    /// Adds the tokens that each expert of a layer got.
    pub fn see_routed(&mut self, layer: usize, tokens: &[u64]) {
        let known = self.routed.entry(layer).or_insert_with(|| vec![0; tokens.len()]);
        for (known, more) in known.iter_mut().zip(tokens) {
            *known += more;
        }
    }
}
