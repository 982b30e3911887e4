//! The scales of MX formats: powers of two from 2^-127 to 2^127, stored as E8M0, the exponent plus 127.

/// The byte of the smallest power of two that `magnitude / largest` does not exceed, from 2^-127 on.
///
/// ModelOpt takes `ceil(log2(amax / largest))` in f32, which can be one less for f32 values one or two units above a power
/// of two; from bf16 and f16 weights no such quotient comes (docs/differences.md).
#[inline(always)]
pub(super) fn byte(magnitude: f32, largest: f32) -> u8 {
    let bits = (magnitude / largest).to_bits();
    let (exponent, mantissa) = (bits >> 23, bits & 0x007f_ffff);
    // 2^-127 is a subnormal number of f32 with its highest mantissa bit set.
    let above = if exponent == 0 { mantissa > 0x0040_0000 } else { mantissa != 0 };
    (exponent + u32::from(above)) as u8
}

/// The power of two that a byte stands for. 255, E8M0's NaN, counts as 2^128: infinity.
#[inline(always)]
pub(super) fn value(byte: u8) -> f32 {
    f32::from_bits(if byte == 0 { 0x0040_0000 } else { u32::from(byte) << 23 })
}

/// One over the power of two that a byte below 255 stands for; exact.
#[inline(always)]
pub(super) fn inverse(byte: u8) -> f32 {
    value(254u8.wrapping_sub(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_is_the_smallest_power_that_is_large_enough() {
        for largest in [6.0f32, 28.0, 127.0, 448.0] {
            for bits in (0..0x7f80_0000u32).step_by(65_521) {
                let magnitude = f32::from_bits(bits);
                let quotient = f64::from(magnitude / largest);
                let byte = byte(magnitude, largest);
                assert!(quotient <= 2f64.powi(i32::from(byte) - 127), "{magnitude:e}");
                assert!(byte == 0 || quotient > 2f64.powi(i32::from(byte) - 128), "{magnitude:e}");
            }
        }
    }

    #[test]
    fn values_and_inverses_are_powers_of_two() {
        for byte in 0..=254u8 {
            assert_eq!(f64::from(value(byte)), 2f64.powi(i32::from(byte) - 127));
            assert_eq!(f64::from(inverse(byte)), 2f64.powi(127 - i32::from(byte)));
        }
        assert_eq!(value(255), f32::INFINITY);
    }
}
