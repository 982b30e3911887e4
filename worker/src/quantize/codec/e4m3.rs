//! E4M3 (`float8_e4m3fn`): one sign bit, four exponent bits of bias 7, three mantissa bits, no infinities.
//!
//! Source: Micikevicius et al., "FP8 Formats for Deep Learning" (2022), table 1. Conversion rounds to nearest, ties to
//! even, through the subnormals, and saturates as torch 2.15 does: 449 and infinity become 448, NaN stays NaN.

/// Largest finite value.
pub const LARGEST: f32 = 448.0;
/// Code of the largest finite value.
pub const LARGEST_CODE: u8 = 0x7e;
/// Smallest positive value, a subnormal.
pub const SMALLEST: f32 = 1.0 / 512.0;
/// Smallest normal value.
pub const SMALLEST_NORMAL: f32 = 1.0 / 64.0;

/// Code of NaN; the sign bit may stand beside it.
const NAN_CODE: u8 = 0x7f;
/// Mantissa bits of f32 that E4M3 has not.
const DROPPED_BITS: u32 = 20;
/// Difference of the exponent biases, at the place of E4M3's exponent: (127 − 7) << 3.
const REBIAS: u32 = 120 << 3;
/// Adding this to a value below 2^-6 leaves its multiple of 2^-9 in the low mantissa bits, rounded by the adder:
/// the last place of numbers in [2^14, 2^15) is 2^-9.
const SUBNORMAL_MAGIC: f32 = 16384.0;

/// Value of every code, by code.
pub static VALUES: [f32; 256] = values();

/// The E4M3 code nearest to `value`, ties to even; saturates at 448, keeps NaN and the sign of zero.
#[inline(always)]
pub fn encode(value: f32) -> u8 {
    let sign = ((value.to_bits() >> 24) & 0x80) as u8;
    let magnitude = value.abs();
    if magnitude.is_nan() {
        return sign | NAN_CODE;
    }
    sign | encode_magnitude(if magnitude > LARGEST { LARGEST } else { magnitude })
}

/// The code of a magnitude in 0 ..= 448. Free of branches, so that loops over it become vector code.
#[inline(always)]
pub fn encode_magnitude(magnitude: f32) -> u8 {
    let normal = (round_mantissa(magnitude.to_bits()) >> DROPPED_BITS).wrapping_sub(REBIAS);
    let subnormal = (magnitude + SUBNORMAL_MAGIC).to_bits().wrapping_sub(SUBNORMAL_MAGIC.to_bits());
    (if magnitude < SMALLEST_NORMAL { subnormal } else { normal }) as u8
}

/// The value of a code.
#[inline(always)]
pub fn decode(code: u8) -> f32 {
    VALUES[usize::from(code)]
}

/// `decode(encode(value))` without the detour over a code: f32 in, the nearest E4M3 value out. NaN stays NaN.
#[inline(always)]
pub fn round(value: f32) -> f32 {
    let magnitude = value.abs();
    // A comparison with NaN is false, so NaN passes both selections and comes out of the sum below.
    let bounded = if magnitude > LARGEST { LARGEST } else { magnitude };
    let kept = !((1 << DROPPED_BITS) - 1);
    let normal = f32::from_bits(round_mantissa(bounded.to_bits()) & kept);
    let subnormal = (bounded + SUBNORMAL_MAGIC) - SUBNORMAL_MAGIC;
    let rounded = if bounded >= SMALLEST_NORMAL { normal } else { subnormal };
    rounded.copysign(value)
}

/// Adds what carries into the kept mantissa bits when the dropped ones round up, ties to even.
#[inline(always)]
fn round_mantissa(bits: u32) -> u32 {
    let last_kept = (bits >> DROPPED_BITS) & 1;
    bits + ((1 << (DROPPED_BITS - 1)) - 1) + last_kept
}

const fn values() -> [f32; 256] {
    let mut table = [0.0; 256];
    let mut code = 0usize;
    while code < 256 {
        let exponent = (code >> 3) & 15;
        let mantissa = (code & 7) as f32;
        let magnitude = if code & 0x7f == NAN_CODE as usize {
            f32::NAN
        } else if exponent == 0 {
            mantissa * SMALLEST
        } else {
            (1.0 + mantissa / 8.0) * f32::from_bits(((exponent + 120) as u32) << 23)
        };
        table[code] = if code & 0x80 == 0 { magnitude } else { -magnitude };
        code += 1;
    }
    table
}

#[cfg(test)]
#[path = "e4m3_tests.rs"]
mod tests;
