//! The element types of MX formats: how a scaled value becomes a code, and back.

use super::super::{e2m1, e4m3};

/// An element type of an MX format.
pub trait MxElement: Copy + Send + Sync + 'static {
    /// Largest value.
    const LARGEST: f32;
    /// Bits of a code in storage: two 4-bit codes share a byte, others have one.
    const STORED_BITS: usize;

    /// The code of a scaled value, as ModelOpt exports it.
    fn encode(value: f32) -> u8;

    /// The value of a code.
    fn decode(code: u8) -> f32;

    /// The nearest value of a scaled magnitude, ties to even, as simulations have it; NaN stays NaN.
    fn round_magnitude(magnitude: f32) -> f32;
}

/// E2M1, of MXFP4.
#[derive(Debug, Clone, Copy)]
pub struct E2M1;

/// E3M2, of MXFP6: no infinities, no NaN, 28 is the largest.
#[derive(Debug, Clone, Copy)]
pub struct E3M2;

/// E4M3, of MXFP8.
#[derive(Debug, Clone, Copy)]
pub struct E4M3;

/// Integers from −127 to 127, of MXINT8.
#[derive(Debug, Clone, Copy)]
pub struct Int8;

impl MxElement for E2M1 {
    const LARGEST: f32 = e2m1::LARGEST;
    const STORED_BITS: usize = 4;

    /// ModelOpt's MXFP4 rounds ties down, towards zero, and gives the sign bit to all that is not above zero.
    #[inline(always)]
    fn encode(value: f32) -> u8 {
        let mut code = if value > 0.0 { 0 } else { 8 };
        for middle in e2m1::MIDDLES {
            code += u8::from(value.abs() > middle);
        }
        code
    }

    #[inline(always)]
    fn decode(code: u8) -> f32 {
        e2m1::decode(code)
    }

    #[inline(always)]
    fn round_magnitude(magnitude: f32) -> f32 {
        e2m1::round_magnitude(magnitude)
    }
}

impl MxElement for E4M3 {
    const LARGEST: f32 = e4m3::LARGEST;
    const STORED_BITS: usize = 8;

    #[inline(always)]
    fn encode(value: f32) -> u8 {
        e4m3::encode(value)
    }

    #[inline(always)]
    fn decode(code: u8) -> f32 {
        e4m3::decode(code)
    }

    #[inline(always)]
    fn round_magnitude(magnitude: f32) -> f32 {
        e4m3::round(magnitude)
    }
}

impl E3M2 {
    /// Mantissa bits of f32 that E3M2 has not.
    const DROPPED_BITS: u32 = 21;
    /// Smallest normal value, 2^-2.
    const SMALLEST_NORMAL: f32 = 0.25;
    /// Numbers from here to twice as much have 2^-4, the smallest subnormal, as last place.
    const SUBNORMAL_MAGIC: f32 = 524_288.0;
    /// Difference of the exponent biases at the place of E3M2's exponent: (127 − 3) << 2.
    const REBIAS: u32 = 124 << 2;
}

impl MxElement for E3M2 {
    const LARGEST: f32 = 28.0;
    const STORED_BITS: usize = 8;

    #[inline(always)]
    fn encode(value: f32) -> u8 {
        let sign = ((value.to_bits() >> 26) & 0x20) as u8;
        let rounded = Self::round_magnitude(value.abs());
        let normal = (rounded.to_bits() >> Self::DROPPED_BITS).wrapping_sub(Self::REBIAS);
        let subnormal = (rounded + Self::SUBNORMAL_MAGIC).to_bits();
        sign | (if rounded < Self::SMALLEST_NORMAL { subnormal } else { normal } as u8 & 0x1f)
    }

    #[inline(always)]
    fn decode(code: u8) -> f32 {
        let (exponent, mantissa) = (u32::from(code >> 2) & 7, f32::from(code & 3));
        let magnitude = if exponent == 0 {
            mantissa / 16.0
        } else {
            (1.0 + mantissa / 4.0) * f32::from_bits((exponent + 124) << 23)
        };
        if code & 0x20 == 0 { magnitude } else { -magnitude }
    }

    #[inline(always)]
    fn round_magnitude(magnitude: f32) -> f32 {
        let bits = magnitude.to_bits();
        let last_kept = (bits >> Self::DROPPED_BITS) & 1;
        let carried = bits.wrapping_add((1 << (Self::DROPPED_BITS - 1)) - 1 + last_kept);
        let normal = f32::from_bits(carried & !((1 << Self::DROPPED_BITS) - 1));
        let subnormal = (magnitude + Self::SUBNORMAL_MAGIC) - Self::SUBNORMAL_MAGIC;
        let rounded = if magnitude < Self::SMALLEST_NORMAL { subnormal } else { normal };
        let rounded = if magnitude > Self::LARGEST { Self::LARGEST } else { rounded };
        if magnitude.is_nan() { magnitude } else { rounded }
    }
}

impl Int8 {
    /// Added to a number below 2^22, it leaves the nearest integer in the low bits.
    const MAGIC: f32 = 12_582_912.0;
}

impl MxElement for Int8 {
    const LARGEST: f32 = 127.0;
    const STORED_BITS: usize = 8;

    #[inline(always)]
    fn encode(value: f32) -> u8 {
        (Self::round_magnitude(value.abs()).copysign(value) + Self::MAGIC).to_bits() as u8
    }

    #[inline(always)]
    fn decode(code: u8) -> f32 {
        f32::from(code as i8)
    }

    #[inline(always)]
    fn round_magnitude(magnitude: f32) -> f32 {
        let bounded = if magnitude > Self::LARGEST { Self::LARGEST } else { magnitude };
        (bounded + Self::MAGIC) - Self::MAGIC
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nearest magnitude by trying all codes; ties go to the even code, or down.
    fn nearest<T: MxElement>(magnitude: f64, codes: std::ops::RangeInclusive<u8>, ties_down: bool) -> f32 {
        let distance = |code: u8| (f64::from(T::decode(code)) - magnitude).abs();
        let first = *codes.start();
        let best = codes.fold(first, |best, code| {
            let tie = distance(code) == distance(best) && !ties_down && code & 1 == 0;
            if distance(code) < distance(best) || tie { code } else { best }
        });
        T::decode(best)
    }

    fn check<T: MxElement>(codes: std::ops::RangeInclusive<u8>, ties_down: bool) {
        let middles = codes.clone().zip(codes.clone().skip(1));
        let middles: Vec<f32> = middles.map(|(a, b)| (T::decode(a) + T::decode(b)) / 2.0).collect();
        let around = middles.iter().flat_map(|m| [m.next_down(), *m, m.next_up()]);
        let more = (0..3000).map(|i| T::LARGEST * i as f32 / 2900.0);
        for magnitude in around.chain(more).chain([0.0, 1e-30, 1e30]) {
            let even = nearest::<T>(f64::from(magnitude).min(1000.0), codes.clone(), false);
            assert_eq!(T::round_magnitude(magnitude), even, "{magnitude}");
            let stored = nearest::<T>(f64::from(magnitude).min(1000.0), codes.clone(), ties_down);
            assert_eq!(T::decode(T::encode(magnitude)), stored, "{magnitude}");
            assert_eq!(T::decode(T::encode(-magnitude)), -stored, "-{magnitude}");
        }
        for code in codes {
            assert_eq!(T::decode(T::encode(T::decode(code))), T::decode(code));
        }
        assert!(T::round_magnitude(f32::NAN).is_nan());
    }

    #[test]
    fn codes_are_the_nearest_and_simulations_round_ties_to_even() {
        check::<E2M1>(0..=7, true);
        check::<E3M2>(0..=31, false);
        check::<E4M3>(0..=126, false);
        check::<Int8>(0..=127, false);
    }

    #[test]
    fn the_sign_of_zero_in_mxfp4_is_modelopts() {
        assert_eq!(
            [E2M1::encode(0.0), E2M1::encode(-0.0), E2M1::encode(0.1), E2M1::encode(-0.1)],
            [8, 8, 0, 8]
        );
    }

    #[test]
    fn e3m2_spans_the_standards_range() {
        // OCP Microscaling Formats v1.0, table 4.
        assert_eq!(E3M2::decode(0b00_0001), 0.0625);
        assert_eq!(E3M2::decode(0b00_0100), 0.25);
        assert_eq!(E3M2::decode(0b01_1111), 28.0);
        assert_eq!(E3M2::decode(0b11_1111), -28.0);
    }
}
