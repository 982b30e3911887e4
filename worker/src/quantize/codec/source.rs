//! What codecs ask of a model's element type: its bits, ordered as its magnitudes are.
//!
//! Without the sign, the bits of an IEEE-like number grow with its magnitude. So the largest magnitude of a tensor, and
//! any threshold of a codec, can be found by comparing integers, with no conversion and no rounding.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::tensor::dtype::Element;

/// An element type that weights can be quantized from.
pub trait Source: Element {
    /// An integer as wide as the element.
    type Bits: Copy + Ord + Default + Send + From<u16> + Into<u32>;

    /// Bits of the largest finite magnitude; everything above is infinite or NaN.
    const LARGEST_FINITE: Self::Bits;

    /// The element's bits without its sign.
    fn magnitude_bits(self) -> Self::Bits;

    /// The magnitude that has these bits.
    fn of_magnitude_bits(bits: Self::Bits) -> f32;

    /// The elements as 16-bit integers, where they are that wide.
    fn halves(source: &[Self]) -> Option<&[u16]>;
}

impl Source for f32 {
    type Bits = u32;
    const LARGEST_FINITE: u32 = 0x7f7f_ffff;

    #[inline(always)]
    fn magnitude_bits(self) -> u32 {
        self.to_bits() & 0x7fff_ffff
    }

    #[inline(always)]
    fn of_magnitude_bits(bits: u32) -> f32 {
        f32::from_bits(bits)
    }

    fn halves(_: &[Self]) -> Option<&[u16]> {
        None
    }
}

macro_rules! half_source {
    ($($element:ty, $largest:literal);*) => {$(
        impl Source for $element {
            type Bits = u16;
            const LARGEST_FINITE: u16 = $largest;

            #[inline(always)]
            fn magnitude_bits(self) -> u16 {
                self.to_bits() & 0x7fff
            }

            #[inline(always)]
            fn of_magnitude_bits(bits: u16) -> f32 {
                Element::to_f32(Self::from_bits(bits))
            }

            fn halves(source: &[Self]) -> Option<&[u16]> {
                Some(source.reinterpret_cast())
            }
        }
    )*};
}

half_source!(bf16, 0x7f7f; f16, 0x7bff);
