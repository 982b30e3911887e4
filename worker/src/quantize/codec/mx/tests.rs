//! MX weights against ModelOpt's definitions, one block after the other in the words of the spec (modelopt.md §3.6).

use half::bf16;

use super::*;
use crate::quantize::codec::e4m3;

fn weights() -> Vec<bf16> {
    let value = |i: usize| match i / 32 {
        // A block of zeros, one that is a power of two times six, one of tiny numbers, one of huge ones.
        0 => 0.0,
        1 => [6.0, -6.0, 0.25, -0.25, 0.75, 5.0, 2.5, 3.5][i % 8],
        2 => 2f32.powi(-130) * (1.0 + (i % 8) as f32 / 8.0),
        3 => 3.0e38 * (i as f32).sin(),
        block => (i as f32 * 0.73).sin() * 2f32.powi(block as i32 - 9),
    };
    (0..24 * 32).map(|i| bf16::from_f32(value(i))).collect()
}

/// `ceil(log2(amax / largest))` in f64, at least −127.
fn exponent(block: &[bf16], largest: f32) -> i32 {
    let amax = block.iter().fold(0f32, |far, value| far.max(value.to_f32().abs()));
    if amax == 0.0 { -127 } else { (f64::from(amax / largest).log2().ceil() as i32).max(-127) }
}

#[test]
fn mxfp8_is_clamped_and_rounded_to_even() {
    let source = weights();
    let (mut codes, mut scales) = (vec![0; source.len()], vec![0; source.len() / BLOCK]);
    encode::<_, E4M3>(&source, Encoded { codes: &mut codes, scales: &mut scales }).unwrap();
    for (at, block) in source.chunks(BLOCK).enumerate() {
        let e = exponent(block, 448.0);
        assert_eq!(i32::from(scales[at]) - 127, e, "block {at}");
        for (value, code) in block.iter().zip(&codes[at * BLOCK..]) {
            let scaled = (f64::from(value.to_f32()) * 2f64.powi(-e)) as f32;
            assert_eq!(*code, e4m3::encode(scaled.clamp(-448.0, 448.0)));
        }
    }
}

#[test]
fn mxfp4_rounds_ties_down_and_marks_zeros_negative() {
    let source = weights();
    let (mut codes, mut scales) = (vec![0; source.len() / 2], vec![0; source.len() / BLOCK]);
    encode::<_, E2M1>(&source, Encoded { codes: &mut codes, scales: &mut scales }).unwrap();
    for (at, block) in source.chunks(BLOCK).enumerate() {
        let e = exponent(block, 6.0);
        assert_eq!(i32::from(scales[at]) - 127, e, "block {at}");
        for (column, value) in block.iter().enumerate() {
            let scaled = (f64::from(value.to_f32()) * 2f64.powi(-e)) as f32;
            let passed = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]
                .iter()
                .filter(|middle| scaled.abs() > **middle)
                .count();
            let expected = passed as u8 + if scaled > 0.0 { 0 } else { 8 };
            let byte = codes[(at * BLOCK + column) / 2];
            assert_eq!(if column % 2 == 0 { byte & 15 } else { byte >> 4 }, expected, "block {at}: {value}");
        }
    }
    assert!(codes[..BLOCK / 2].iter().all(|byte| *byte == 0x88));
}

#[test]
fn simulations_round_ties_to_even_and_keep_short_blocks_and_odd_values() {
    fn check<T: MxElement>() {
        let mut values = weights();
        simulate::<_, T>(&mut values, 32);
        for (before, after) in weights().chunks(BLOCK).zip(values.chunks(BLOCK)) {
            let e = if before.iter().all(|value| value.to_f32() == 0.0) {
                0
            } else {
                exponent(before, T::LARGEST)
            };
            for (before, after) in before.iter().zip(after) {
                let scaled = (f64::from(before.to_f32()) * 2f64.powi(-e)) as f32;
                let expected = f64::from(T::round_magnitude(scaled.abs()).copysign(scaled)) * 2f64.powi(e);
                assert_eq!(after.to_f32(), bf16::from_f32(expected as f32).to_f32(), "{before}");
            }
        }
    }
    check::<E2M1>();
    check::<E3M2>();
    check::<E4M3>();
    check::<Int8>();
    let mut short = [1.0f32, f32::NAN, f32::INFINITY, -3.3, 96.0];
    simulate::<_, E4M3>(&mut short, 4);
    assert!(short[1].is_nan() && short[4] == 96.0);
}

#[test]
fn lengths_that_do_not_go_together_are_refused() {
    let source = weights();
    let (mut codes, mut scales) = (vec![0; source.len()], vec![0; 1]);
    assert!(encode::<_, E4M3>(&source, Encoded { codes: &mut codes, scales: &mut scales }).is_err());
    assert!(decode::<bf16, E2M1>(&codes, &scales, &mut weights()).is_err());
}
