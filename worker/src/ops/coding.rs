//! What devices may do by themselves where others leave it to the host: codes of weights, their values, and the rounding of
//! activations. How scales are made is decided by codecs, above; here they are numbers.

use std::borrow::Cow;

use qlaunch_shared::Result;

use crate::tensor::DType;
use crate::tensor::host::TensorView;

/// A matrix of `[rows, columns]` cut into runs that share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// `[rows, columns]`.
    pub shape: [usize; 2],
    /// Columns of a run; the last one of a row may have fewer.
    pub width: usize,
    /// Rows of a run.
    pub height: usize,
}

impl Cut {
    /// Scales of one row.
    pub const fn across(self) -> usize {
        self.shape[1].div_ceil(if self.width == 0 { 1 } else { self.width })
    }

    /// Scales of the matrix.
    pub const fn count(self) -> usize {
        self.shape[0].div_ceil(if self.height == 0 { 1 } else { self.height }) * self.across()
    }
}

/// Elements of blocks of 32 under powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mx {
    /// E2M1, two a byte.
    Fp4,
    /// E3M2.
    Fp6,
    /// E4M3.
    Fp8,
    /// Whole numbers.
    Int8,
}

/// How a weight becomes codes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Coding<'a> {
    /// E4M3 under one scale; the quotient is rounded to the element type first.
    Fp8(f32),
    /// E4M3 under scales of runs.
    Fp8Runs(Cut, &'a [f32]),
    /// 8-bit integers under scales of runs.
    Int8Runs(Cut, &'a [f32]),
    /// 4-bit integers under scales of runs, two rows a byte, the even one in the low half.
    Int4Pairs(Cut, &'a [f32]),
    /// E2M1 in blocks, whose scales come from the values at hand.
    Nvfp4 {
        /// Elements of a block, 16 or 32.
        block: usize,
        /// The tensor's scale.
        tensor: f32,
        /// Six times it, rounded.
        sixfold: f32,
    },
    /// E2M1 in blocks under given magnitudes.
    Nvfp4Fixed {
        /// Elements of a block, 16 or 32.
        block: usize,
        /// Largest magnitude of the tensor.
        amax: f32,
        /// Scale of a block that reaches as far as the tensor.
        ceiling: f32,
        /// The tensor's scale.
        tensor: f32,
        /// Largest magnitude of each block.
        magnitudes: &'a [f32],
    },
    /// Blocks of 32 under powers of two.
    Mx(Mx),
    /// 16 quantiles in flat blocks of 64, two a byte, the first in the high half.
    Nf4,
}

/// What a device made of a weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Coded {
    /// The codes as they are stored.
    pub codes: Vec<u8>,
    /// A byte for each block, where the device makes the scales.
    pub scales: Vec<u8>,
    /// The largest magnitude of each block of NF4.
    pub magnitudes: Vec<f32>,
}

/// A weight as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<'a> {
    /// Its codes.
    pub codes: &'a [u8],
    /// What they stand for.
    pub decoding: Decoding<'a>,
    /// The type of its values.
    pub dtype: DType,
    /// `[rows, columns]`.
    pub shape: [usize; 2],
}

/// What codes of a weight stand for.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoding<'a> {
    /// E4M3 under scales of runs.
    Fp8Runs(Cut, Cow<'a, [f32]>),
    /// 8-bit integers under scales of runs.
    Int8Runs(Cut, Cow<'a, [f32]>),
    /// 4-bit integers under scales of runs, two rows a byte.
    Int4Pairs(Cut, Cow<'a, [f32]>),
    /// E2M1 in blocks under E4M3 scales.
    Nvfp4 {
        /// Elements of a block.
        block: usize,
        /// The tensor's scale.
        tensor: f32,
        /// E4M3 codes of the blocks' scales.
        scales: &'a [u8],
    },
    /// Blocks of 32 under powers of two, a byte each.
    Mx(Mx, &'a [u8]),
    /// Quantiles times the magnitude of each block of 64.
    Nf4 {
        /// What the 16 codes stand for.
        map: [f32; 16],
        /// Magnitudes of the blocks.
        magnitudes: Cow<'a, [f32]>,
    },
}

/// How an activation is rounded in place, row by row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rounding<'a> {
    /// Each channel times a factor.
    Factors(&'a [f32]),
    /// To E4M3 behind this factor.
    Fp8(f32),
    /// To E4M3, each row under its own largest magnitude.
    Fp8Rows,
    /// To whole numbers from -128 to 127 behind a factor, and divided by the second number.
    Int8(f32, f32),
    /// To E2M1 in blocks, whose scales come from the values at hand.
    Nvfp4 {
        /// Elements of a block, 16 or 32.
        block: usize,
        /// The tensor's scale.
        tensor: f32,
        /// Six times it, rounded.
        sixfold: f32,
    },
    /// Blocks of 32 under powers of two.
    Mx(Mx),
}

/// A device that turns weights into codes.
pub trait Coder: Sync {
    /// Makes codes of a weight whose elements are finite.
    ///
    /// # Errors
    /// Sizes do not go together, or the device fails.
    fn encode(&self, weight: TensorView<'_>, coding: Coding<'_>) -> Result<Coded>;
}
