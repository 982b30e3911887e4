//! E2M1: one sign bit, two exponent bits, one mantissa bit: ±{0, ½, 1, 1½, 2, 3, 4, 6}.
//!
//! Source: OCP Microscaling Formats v1.0 §5.3.3; the rounding is ModelOpt's NVFP4 (modelopt.md §3.5).

use crate::tensor::dtype::Element;

/// Largest value.
pub const LARGEST: f32 = 6.0;

/// Elements whose codes are made together.
const RUN: usize = 16;

/// Value of every code, by code.
pub static VALUES: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// The middle between each magnitude and the next. A value on it goes to the even code of the two.
pub const MIDDLES: [f32; 7] = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0];

/// The code nearest to `value`, ties to the even code, saturating at ±6.
///
/// ModelOpt's sign: 8 for everything below zero, even where the magnitude rounds to zero; −0.0 gets 0. NaN gets 0.
#[inline(always)]
pub fn encode(value: f32) -> u8 {
    let sign = if value < 0.0 { 8 } else { 0 };
    sign | encode_magnitude(value.abs())
}

/// Writes the codes of elements over a divisor to half as many bytes, the low nibble for the even one.
#[inline(always)]
pub fn encode_over<E: Element>(source: &[E], divisor: f32, target: &mut [u8]) {
    let (runs, rest) = source.as_chunks::<RUN>();
    let (bytes, last_bytes) = target.split_at_mut(runs.len() * RUN / 2);
    for (run, bytes) in runs.iter().zip(bytes.as_chunks_mut::<{ RUN / 2 }>().0) {
        encode_run(run, divisor, bytes);
    }
    encode_run(rest, divisor, last_bytes);
}

/// As [`encode_over`], for at most so many elements that their codes stay in a register before they are packed.
#[inline(always)]
fn encode_run<E: Element>(source: &[E], divisor: f32, target: &mut [u8]) {
    let mut codes = [0; RUN];
    for (code, value) in codes.iter_mut().zip(source) {
        *code = encode(value.to_f32() / divisor);
    }
    for (byte, [even, odd]) in target.iter_mut().zip(codes.as_chunks::<2>().0) {
        *byte = even | odd << 4;
    }
}

/// The code of a magnitude, without sign; NaN gets 0. Free of branches.
#[inline(always)]
pub fn encode_magnitude(magnitude: f32) -> u8 {
    let mut code = 0;
    for step in 0..MIDDLES.len() {
        code += u8::from(passes(magnitude, step));
    }
    code
}

/// Whether a magnitude has passed a middle, so that its code is above the middle's index; NaN has passed none.
#[inline(always)]
pub fn passes(magnitude: f32, middle: usize) -> bool {
    // From an odd code to an even one the step is taken on the middle itself, otherwise beyond it.
    if middle % 2 == 1 { magnitude >= MIDDLES[middle] } else { magnitude > MIDDLES[middle] }
}

/// The value of a code; only the low four bits count.
#[inline(always)]
pub fn decode(code: u8) -> f32 {
    VALUES[usize::from(code & 15)]
}

/// The E2M1 magnitude nearest to `magnitude`, ties to the even code; NaN stays NaN. Free of branches.
#[inline(always)]
pub fn round_magnitude(magnitude: f32) -> f32 {
    let (step, inverse) = if magnitude < 2.0 {
        (0.5, 2.0)
    } else if magnitude < 4.0 {
        (1.0, 1.0)
    } else {
        (2.0, 0.5)
    };
    let rounded = (magnitude * inverse).round_ties_even() * step;
    if rounded > LARGEST { LARGEST } else { rounded }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// ModelOpt's own words (NV:230-250): boundaries below |x|, plus one on the boundaries of odd codes.
    fn defined(value: f32) -> u8 {
        let sign = if value < 0.0 { 8 } else { 0 };
        let below = MIDDLES.iter().filter(|&&middle| middle < value.abs()).count() as u8;
        sign | (below + u8::from([0.75, 1.75, 3.5].contains(&value.abs())))
    }

    /// Nearest magnitude by trying all; ties go to the even code. All from 6 on are alike, and small ones keep f64 exact.
    fn nearest(magnitude: f32) -> u8 {
        let magnitude = magnitude.min(100.0);
        let distance = |code: u8| (f64::from(VALUES[usize::from(code)]) - f64::from(magnitude)).abs();
        (0..8u8).fold(0, |best, code| {
            let better = distance(code) < distance(best);
            if better || (distance(code) == distance(best) && code & 1 == 0) { code } else { best }
        })
    }

    #[test]
    fn runs_of_any_length_have_the_codes_of_their_elements() {
        let values: Vec<f32> = (0..54).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
        for length in [0, 2, 16, 22, 32, 54] {
            let mut bytes = vec![0xff; length / 2];
            encode_over(&values[..length], 7.0, &mut bytes);
            let codes = bytes.iter().flat_map(|byte| [byte & 15, byte >> 4]);
            assert!(codes.eq(values[..length].iter().map(|value| encode(value / 7.0))), "{length}");
        }
    }

    #[test]
    fn every_bf16_value_gets_the_code_of_the_definition_and_of_the_search() {
        for bits in 0..=u16::MAX {
            let value = bf16::from_bits(bits).to_f32();
            assert_eq!(encode(value), defined(value), "{value}");
            if value.is_finite() {
                assert_eq!(encode(value) & 7, nearest(value.abs()), "{value}");
            }
        }
    }

    #[test]
    fn rounding_in_place_gives_the_value_of_the_code() {
        for bits in (0..0x7f80_0000u32).step_by(509) {
            let magnitude = f32::from_bits(bits);
            assert_eq!(round_magnitude(magnitude), decode(encode(magnitude)), "{magnitude}");
        }
        for middle in MIDDLES {
            for magnitude in [middle.next_down(), middle, middle.next_up()] {
                assert_eq!(round_magnitude(magnitude), decode(encode(magnitude)), "{magnitude}");
            }
        }
        assert_eq!(round_magnitude(f32::INFINITY), 6.0);
        assert!(round_magnitude(f32::NAN).is_nan());
    }

    #[test]
    fn the_sign_follows_modelopt() {
        assert_eq!(encode(-0.1), 8);
        assert_eq!(encode(-0.0), 0);
        assert_eq!(encode(-7.0), 15);
        assert_eq!(encode(f32::NAN), 0);
    }
}
