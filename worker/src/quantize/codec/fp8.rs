//! FP8 with one scale per tensor: E4M3 codes of weights, and the same rounding of activations in place; `scaled` has those
//! with more scales.
//!
//! The definition is ModelOpt's CPU path (modelopt.md §3.2, §3.3). `Octave` computes the same codes of a bf16 tensor
//! without a division per element.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod octave;
mod scaled;

use std::marker::PhantomData;

use qlaunch_shared::{Error, Result};
use rayon::prelude::*;

use self::octave::Octave;
pub(in crate::quantize) use self::scaled::factor;
pub use self::scaled::{decode_scaled, encode_scaled, simulate_scaled, simulate_tokens};
use super::amax::CHUNK;
use super::{Source, e4m3};
use crate::tensor::dtype::{DType, Element};
use crate::tensor::simd::{InstructionSet, dispatched};

/// Magnitudes up to this one count as zero where a scale for activations is made: ModelOpt's `_fp8_eager`.
const SMALLEST_AMAX: f32 = 1.0 / (1 << 24) as f32;

/// The scale of a weight: `amax / 448`, a true division.
///
/// ModelOpt divides 0 by 0 where the weight is all zeros and stores NaN codes; here it gets scale 1 and codes 0
/// (docs/differences.md). So does a weight so small that its scale is no f32.
pub fn scale(amax: f32) -> f32 {
    let scale = amax / e4m3::LARGEST;
    if scale > 0.0 { scale } else { 1.0 }
}

/// Turns weights of element type `E` into E4M3 codes, with one scale.
#[derive(Debug, Clone)]
pub struct Encoder<E> {
    scale: f32,
    octave: Option<Octave>,
    source: PhantomData<E>,
}

impl<E: Source> Encoder<E> {
    /// An encoder for a weight whose largest magnitude is `amax`, or is clipped to it.
    ///
    /// # Errors
    /// `amax` is negative or not finite.
    pub fn new(amax: f32) -> Result<Self> {
        if !amax.is_finite() || amax < 0.0 {
            return Err(Error::bug(format!("an FP8 scale cannot be made of the amax {amax}")));
        }
        let scale = scale(amax);
        let octave = (E::DTYPE == DType::BF16).then(|| Octave::new(scale)).flatten();
        Ok(Self { scale, octave, source: PhantomData })
    }

    /// The scale to be stored: a value is its code times this.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Writes one code per element: `E4M3(E(f32(w) / scale))`, the quotient rounded to the element type first.
    ///
    /// Runs on the caller's thread pool. `source` must be finite, as [`super::amax()`] proves.
    ///
    /// # Errors
    /// The slices have different lengths.
    pub fn encode(&self, source: &[E], codes: &mut [u8]) -> Result<()> {
        check_lengths(source.len(), codes.len())?;
        let (set, stores) = (InstructionSet::detect(), Stores::of(codes.len()));
        source
            .par_chunks(CHUNK)
            .zip(codes.par_chunks_mut(CHUNK))
            .for_each(|(source, codes)| self.encode_chunk(set, stores, source, codes));
        Ok(())
    }

    fn encode_chunk(&self, set: InstructionSet, stores: Stores, source: &[E], codes: &mut [u8]) {
        let start = stores.start(codes);
        let (head, source) = source.split_at(start);
        let (head_codes, codes) = codes.split_at_mut(start);
        encode_by_definition(set, head, self.scale, head_codes);
        let done = match (&self.octave, E::halves(source)) {
            (Some(octave), Some(halves)) => octave.encode(set, stores, halves, codes),
            _ => 0,
        };
        encode_by_definition(set, &source[done..], self.scale, &mut codes[done..]);
    }
}

/// Where codes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stores {
    /// Into the caches, where the one who writes them to a file finds them.
    Cached,
    /// Past the caches, a line at a time: they would not stay there, and a line that is written whole need not be read.
    Streamed,
}

impl Stores {
    /// Codes up to this many bytes are likely to stay in a last-level cache.
    const LARGEST_CACHED: usize = 32 << 20;
    /// Bytes of a cache line.
    const LINE: usize = 64;

    fn of(bytes: usize) -> Self {
        if bytes > Self::LARGEST_CACHED { Self::Streamed } else { Self::Cached }
    }

    /// The first code that may be stored in this way.
    fn start(self, codes: &[u8]) -> usize {
        match self {
            Self::Cached => 0,
            Self::Streamed => codes.as_ptr().align_offset(Self::LINE).min(codes.len()),
        }
    }
}

/// Writes the values of codes: `f32(code) · scale`, rounded to the element type.
///
/// # Errors
/// The slices have different lengths.
pub fn decode<E: Element>(codes: &[u8], scale: f32, target: &mut [E]) -> Result<()> {
    check_lengths(target.len(), codes.len())?;
    // 256 products instead of one per element.
    let values = e4m3::VALUES.map(|value| E::from_f32(value * scale));
    codes.par_chunks(CHUNK).zip(target.par_chunks_mut(CHUNK)).for_each(|(codes, target)| {
        for (target, code) in target.iter_mut().zip(codes) {
            *target = values[usize::from(*code)];
        }
    });
    Ok(())
}

/// Rounds activations in place to what FP8 keeps of them: `f32(E4M3(clamp(x · s, ±448))) · (1 / s)`, `s = 448 / amax`,
/// back in the element type (modelopt.md §3.3). NaN stays NaN.
pub fn simulate<E: Element>(values: &mut [E], amax: f32) {
    let factor = scaled::factor(amax);
    let set = InstructionSet::detect();
    values.par_chunks_mut(CHUNK).for_each(|values| simulate_chunk(set, values, factor));
}

dispatched! {
    fn simulate_chunk<E: Element>(values: &mut [E], factor: f32) {
        let inverse = 1.0 / factor;
        for value in values {
            *value = E::from_f32(e4m3::round(value.to_f32() * factor) * inverse);
        }
    }
}

dispatched! {
    /// The definition, word for word.
    fn encode_by_definition<E: Element>(source: &[E], scale: f32, codes: &mut [u8]) {
        for (code, value) in codes.iter_mut().zip(source) {
            *code = e4m3::encode(E::from_f32(value.to_f32() / scale).to_f32());
        }
    }
}

fn check_lengths(elements: usize, codes: usize) -> Result<()> {
    if elements == codes {
        return Ok(());
    }
    Err(Error::bug(format!("{elements} elements and {codes} FP8 codes do not go together")))
}

#[cfg(test)]
#[path = "fp8/tests.rs"]
mod tests;
