//! E4M3 against a search over all its values, for every bf16 input and around every boundary.

use half::bf16;

use super::*;

/// The value of a code from the definition in f64, apart from the table under test.
fn defined(code: u8) -> f64 {
    let exponent = i32::from((code >> 3) & 15);
    let mantissa = f64::from(code & 7);
    let magnitude =
        if exponent == 0 { mantissa / 512.0 } else { (8.0 + mantissa) * 2f64.powi(exponent - 7 - 3) };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// Nearest code by trying all of them; ties go to the even code.
fn nearest(value: f32) -> u8 {
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    if value.is_nan() {
        return sign | 0x7f;
    }
    let magnitude = f64::from(value.abs()).min(448.0);
    let distance = |code: u8| (defined(code) - magnitude).abs();
    let mut best = 0u8;
    for code in 1..=0x7e {
        if distance(code) < distance(best) || (distance(code) == distance(best) && code & 1 == 0) {
            best = code;
        }
    }
    sign | best
}

#[test]
fn every_bf16_value_gets_the_nearest_code_with_ties_to_even() {
    for bits in 0..=u16::MAX {
        let value = bf16::from_bits(bits).to_f32();
        assert_eq!(encode(value), nearest(value), "{value} ({bits:#06x})");
    }
}

#[test]
fn f32_values_around_every_boundary_get_the_nearest_code() {
    for code in 0..0x7eu8 {
        let middle = ((defined(code) + defined(code + 1)) / 2.0) as f32;
        for value in [middle.next_down(), middle, middle.next_up()] {
            assert_eq!(encode(value), nearest(value), "{value}");
            assert_eq!(encode(-value), nearest(-value), "{value}");
        }
    }
}

#[test]
fn every_code_survives_decoding_and_encoding() {
    for code in 0..=u8::MAX {
        if code & 0x7f == 0x7f {
            assert!(decode(code).is_nan());
            continue;
        }
        assert_eq!(f64::from(decode(code)), defined(code));
        assert_eq!(encode(decode(code)), code);
    }
}

#[test]
fn the_known_cases_of_torch_hold() {
    assert_eq!(decode(encode(2f32.powi(-10))), 0.0);
    assert_eq!(decode(encode(1.5 * 2f32.powi(-9))), 2.0 * 2f32.powi(-9));
    assert_eq!(encode(449.0), 0x7e);
    assert_eq!(encode(f32::INFINITY), 0x7e);
    assert_eq!(encode(f32::NEG_INFINITY), 0xfe);
    assert_eq!(encode(f32::NAN) & 0x7f, 0x7f);
    assert_eq!(encode(-0.0), 0x80);
}

#[test]
fn rounding_in_place_equals_the_detour_over_the_code() {
    let mut bits = 0u32;
    loop {
        let value = f32::from_bits(bits);
        let (direct, detour) = (round(value), decode(encode(value)));
        assert!(
            direct.to_bits() == detour.to_bits() || (direct.is_nan() && detour.is_nan()),
            "{value:e} ({bits:#x}): {direct:e} {detour:e}"
        );
        match bits.checked_add(4093) {
            Some(next) => bits = next,
            None => break,
        }
    }
}
