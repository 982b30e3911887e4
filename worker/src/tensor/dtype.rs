//! Element types that models compute in, and conversions between them.
//!
//! Narrowing rounds to nearest, ties to even, and keeps NaN a NaN. The conversions have no branches, so that every loop
//! that calls them is vectorised; they do not use `VCVTNEPS2BF16`, which turns subnormal numbers into zero where torch
//! keeps them.

use half::slice::HalfFloatSliceExt;
use half::vec::HalfBitsVecExt;
use half::{bf16, f16};

pub use qlaunch_shared::checkpoint::DType;

use super::pages::prefer_large_pages;
use super::simd::{InstructionSet, dispatched};

/// A type that a model's weights and activations can have.
pub trait Element: Copy + Send + Sync + PartialEq + std::fmt::Debug + 'static {
    /// Its name at run time.
    const DTYPE: DType;

    /// The same value; every element fits into an `f32`.
    fn to_f32(self) -> f32;

    /// The nearest element, ties to even; NaN stays NaN.
    fn from_f32(value: f32) -> Self;

    /// `length` zeros, from memory that the system hands out as zeros.
    fn zeros(length: usize) -> Vec<Self>;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }

    fn zeros(length: usize) -> Vec<Self> {
        untouched(vec![0.0; length])
    }
}

impl Element for bf16 {
    const DTYPE: DType = DType::BF16;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
        let chosen = if is_nan { bits | 0x0040_0000 } else { rounded };
        Self::from_bits((chosen >> 16) as u16)
    }

    fn zeros(length: usize) -> Vec<Self> {
        // A vector of `u16` zeros comes from `calloc`; one of `bf16` would be filled by hand.
        untouched(vec![0u16; length]).reinterpret_into()
    }
}

impl Element for f16 {
    const DTYPE: DType = DType::F16;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        let half = u32::from(self.to_bits());
        let magnitude = (half & 0x7fff) << 13;
        let exponent = magnitude & 0x0f80_0000;
        // The exponent's bias grows from 15 to 127; infinity and NaN move on to 255.
        let normal = magnitude + ((127 - 15) << 23);
        let infinite = normal + ((128 - 16) << 23);
        // A subnormal gets a leading one, which the subtraction of that one then normalises away.
        let subnormal = f32::from_bits(normal + (1 << 23)) - f32::from_bits(113 << 23);
        let bits = match exponent {
            0x0f80_0000 => infinite,
            0 => subnormal.to_bits(),
            _ => normal,
        };
        f32::from_bits(bits | (half & 0x8000) << 16)
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        const SUBNORMAL_MAGIC: u32 = (127 - 15 + (23 - 10) + 1) << 23;
        let bits = value.to_bits();
        let sign = (bits >> 16) & 0x8000;
        let magnitude = bits & 0x7fff_ffff;
        let infinite = if magnitude > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
        // Adding the magic number lets the FPU's own rounding drop the bits that do not fit.
        let subnormal = (f32::from_bits(magnitude) + f32::from_bits(SUBNORMAL_MAGIC))
            .to_bits()
            .wrapping_sub(SUBNORMAL_MAGIC);
        let odd = (magnitude >> 13) & 1;
        let normal = magnitude.wrapping_sub((127 - 15) << 23).wrapping_add(0xfff + odd) >> 13;
        let half = if magnitude >= (127 + 16) << 23 {
            infinite
        } else if magnitude < 113 << 23 {
            subnormal
        } else {
            normal
        };
        Self::from_bits((half | sign) as u16)
    }

    fn zeros(length: usize) -> Vec<Self> {
        untouched(vec![0u16; length]).reinterpret_into()
    }
}

/// Zeros from `calloc`, which nobody touched yet, on large pages.
fn untouched<E>(mut zeros: Vec<E>) -> Vec<E> {
    prefer_large_pages(&mut zeros);
    zeros
}

dispatched! {
    /// Converts `source` into `target`, element by element; the lengths must be equal.
    fn widen_slice<E: Element>(source: &[E], target: &mut [f32]) {
        for (target, source) in target.iter_mut().zip(source) {
            *target = source.to_f32();
        }
    }
}

dispatched! {
    /// Rounds `source` into `target`, element by element; the lengths must be equal.
    fn round_slice<E: Element>(source: &[f32], target: &mut [E]) {
        for (target, source) in target.iter_mut().zip(source) {
            *target = E::from_f32(*source);
        }
    }
}

/// Writes every element of `source` as `f32` into `target`; exact.
///
/// Slices of different lengths are converted up to the shorter one's end.
pub fn widen<E: Element>(source: &[E], target: &mut [f32]) {
    widen_slice(InstructionSet::detect(), source, target);
}

/// Rounds every `f32` of `source` into `target`: nearest, ties to even, NaN stays NaN.
///
/// Slices of different lengths are converted up to the shorter one's end.
pub fn round<E: Element>(source: &[f32], target: &mut [E]) {
    round_slice(InstructionSet::detect(), source, target);
}

/// Rounds every `f32` to the nearest value of `dtype`, in place.
pub fn round_as(dtype: DType, values: &mut [f32]) {
    match dtype {
        DType::BF16 => round_within::<bf16>(InstructionSet::detect(), values),
        DType::F16 => round_within::<half::f16>(InstructionSet::detect(), values),
        _ => {}
    }
}

dispatched! {
    fn round_within<E: Element>(values: &mut [f32]) {
        for value in values {
            *value = E::from_f32(*value).to_f32();
        }
    }
}

/// The bits of bf16 elements, for codecs that work on bits.
pub fn bf16_bits(elements: &[bf16]) -> &[u16] {
    elements.reinterpret_cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_same<E: Element>(left: E, right: E) -> bool {
        let (left, right) = (left.to_f32(), right.to_f32());
        left.to_bits() == right.to_bits() || (left.is_nan() && right.is_nan())
    }

    /// Every exponent and sign with mantissas around the ties of both narrow types, and a stride over all the rest.
    fn interesting_floats() -> impl Iterator<Item = f32> {
        let corners = (0..=0x1ffu32).flat_map(|top| {
            let low =
                [0, 1, 0xfff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x7fff, 0x8000, 0x8001, 0x1_7fff, 0x1_8000];
            let high = [0x7f_ffff, 0x7f_f000, 0x7f_efff, 0x40_0000];
            low.into_iter().chain(high).map(move |mantissa| top << 23 | mantissa)
        });
        corners.chain((0..u32::MAX).step_by(4099)).map(f32::from_bits)
    }

    #[test]
    fn bf16_rounds_as_the_half_crate_does() {
        for value in interesting_floats() {
            assert!(is_same(<bf16 as Element>::from_f32(value), bf16::from_f32(value)), "{value:e}");
        }
    }

    #[test]
    fn f16_rounds_as_the_half_crate_does() {
        for value in interesting_floats() {
            assert!(is_same(<f16 as Element>::from_f32(value), f16::from_f32_const(value)), "{value:e}");
        }
    }

    #[test]
    fn every_narrow_value_widens_as_the_half_crate_does_and_returns_unchanged() {
        for bits in 0..=u16::MAX {
            let (brain, half) = (bf16::from_bits(bits), f16::from_bits(bits));
            assert!(is_same(Element::to_f32(brain), brain.to_f32()), "bf16 {bits:#06x}");
            assert!(is_same(Element::to_f32(half), half.to_f32_const()), "f16 {bits:#06x}");
            assert!(is_same(<bf16 as Element>::from_f32(Element::to_f32(brain)), brain));
            assert!(is_same(<f16 as Element>::from_f32(Element::to_f32(half)), half));
        }
    }

    #[test]
    fn every_instruction_set_converts_alike() {
        let source: Vec<f32> = interesting_floats().step_by(61).collect();
        let sets = [InstructionSet::detect(), InstructionSet::detect().at_most_avx2()];
        let mut expected = bf16::zeros(source.len());
        round_slice(InstructionSet::BASELINE, &source, &mut expected);
        for set in sets {
            let mut rounded = bf16::zeros(source.len());
            round_slice(set, &source, &mut rounded);
            assert_eq!(bf16_bits(&rounded), bf16_bits(&expected));
            let (mut wide, mut plain) = (vec![0.0; source.len()], vec![0.0; source.len()]);
            widen_slice(set, &rounded, &mut wide);
            widen_slice(InstructionSet::BASELINE, &rounded, &mut plain);
            assert!(wide.iter().zip(&plain).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}
