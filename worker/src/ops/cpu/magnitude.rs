//! The largest magnitude of a tensor, with a count of what is not finite.

use crate::ops::backend::Magnitude;
use crate::tensor::dtype::Element;
use crate::tensor::simd::dispatched;

/// Maxima that run side by side.
const LANES: usize = 32;
/// Magnitudes of this many bits or more are infinite (equal) or not a number (greater).
const INFINITE: u32 = 0x7f80_0000;

dispatched! {
    /// Measures `x`.
    ///
    /// Magnitudes are compared as integers, which order as floats do and see NaN as the largest.
    pub(super) fn magnitude<E: Element>(x: &[E]) -> Magnitude {
        let (chunks, rest) = x.as_chunks::<LANES>();
        let mut largest = [0u32; LANES];
        for chunk in chunks {
            for (largest, x) in largest.iter_mut().zip(chunk) {
                *largest = (*largest).max(magnitude_bits(*x));
            }
        }
        let all = largest.into_iter().chain(rest.iter().map(|x| magnitude_bits(*x)));
        let largest = all.fold(0, u32::max);
        if largest < INFINITE {
            return Magnitude { amax: f32::from_bits(largest), nans: 0, infinities: 0 };
        }
        careful(x)
    }
}

#[inline(always)]
fn magnitude_bits<E: Element>(x: E) -> u32 {
    x.to_f32().to_bits() & 0x7fff_ffff
}

/// Measures elements of which some are known not to be finite.
fn careful<E: Element>(x: &[E]) -> Magnitude {
    x.iter().fold(Magnitude::default(), |found, x| {
        let bits = magnitude_bits(*x);
        found.merge(Magnitude {
            amax: if bits < INFINITE { f32::from_bits(bits) } else { 0.0 },
            nans: u64::from(bits > INFINITE),
            infinities: u64::from(bits == INFINITE),
        })
    })
}
