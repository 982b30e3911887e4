//! FP8 codes against the definition, for every bf16 input, every instruction set and odd lengths.

use half::{bf16, f16};
use proptest::prelude::*;

use super::super::Runs;
use super::*;

const SETS: [fn() -> InstructionSet; 3] =
    [|| InstructionSet::BASELINE, || InstructionSet::detect().at_most_avx2(), InstructionSet::detect];

/// modelopt.md §3.2 with the conversions of the `half` crate, which the codec does not use.
fn defined(weight: f32, scale: f32, narrow: fn(f32) -> f32) -> u8 {
    e4m3::encode(narrow(weight / scale))
}

fn every_finite_bf16() -> Vec<bf16> {
    (0..=u16::MAX).map(bf16::from_bits).filter(|value| value.is_finite()).collect()
}

fn assert_codes_are_defined(source: &[bf16], amax: f32) {
    let encoder = Encoder::<bf16>::new(amax).unwrap();
    let narrow = |quotient: f32| bf16::from_f32(quotient).to_f32();
    let expected: Vec<u8> =
        source.iter().map(|value| defined(value.to_f32(), encoder.scale(), narrow)).collect();
    for (set, stores) in SETS.into_iter().flat_map(|set| [(set, Stores::Cached), (set, Stores::Streamed)]) {
        // Codes that begin anywhere in a cache line.
        let mut codes = vec![0x55; source.len() + 7];
        encoder.encode_chunk(set(), stores, source, &mut codes[7..]);
        for ((code, expected), value) in codes[7..].iter().zip(&expected).zip(source) {
            assert_eq!(code, expected, "amax {amax:e}, value {value:e}, {:?}, {stores:?}", set());
        }
        assert_eq!(codes[..7], [0x55; 7]);
    }
}

#[test]
fn every_bf16_value_gets_the_code_of_the_definition_under_many_scales() {
    let source = every_finite_bf16();
    // 128 mantissas of one octave of scales, then scales of all sizes, down to those without normal quotients.
    for bits in 0x3e00u16..0x3e80 {
        assert_codes_are_defined(&source, bf16::from_bits(bits).to_f32());
    }
    for bits in (0u16..0x7f80).step_by(331) {
        assert_codes_are_defined(&source, bf16::from_bits(bits).to_f32());
    }
    for amax in [448.0, 448.0f32.next_down(), 448.0f32.next_up(), 3.3e38, 1e-45, 0.0, 4.48e-28, 4.47e-28] {
        assert_codes_are_defined(&source, amax);
    }
}

#[test]
fn the_steps_serve_usual_scales_and_leave_extreme_ones_to_the_definition() {
    for amax in [1e-20, 1e-3, 0.7, 448.0, 1e20] {
        assert!(Encoder::<bf16>::new(amax).unwrap().octave.is_some(), "{amax}");
    }
    for amax in [0.0f32, 1e-40, 3.3e38] {
        let octave = Encoder::<bf16>::new(amax).unwrap().octave;
        assert_eq!(octave.is_some(), amax == 0.0, "zero gets scale 1, {amax}");
    }
}

#[test]
fn f16_and_f32_round_the_quotient_to_their_own_type() {
    let source: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|value| value.is_finite()).collect();
    let wide: Vec<f32> = source.iter().map(|value| value.to_f32() * 1.000_123).collect();
    for amax in [0.01f32, 0.731, 100.0, 65504.0] {
        let (mut codes, mut wide_codes) = (vec![0; source.len()], vec![0; source.len()]);
        let encoder = Encoder::<f16>::new(amax).unwrap();
        encoder.encode(&source, &mut codes).unwrap();
        Encoder::<f32>::new(amax).unwrap().encode(&wide, &mut wide_codes).unwrap();
        for i in 0..source.len() {
            let narrow = |quotient: f32| f16::from_f32_const(quotient).to_f32();
            assert_eq!(codes[i], defined(source[i].to_f32(), encoder.scale(), narrow));
            assert_eq!(wide_codes[i], defined(wide[i], encoder.scale(), |quotient| quotient));
        }
    }
}

#[test]
fn a_weight_of_zeros_gets_scale_one_and_decodes_to_zeros() {
    let encoder = Encoder::<bf16>::new(0.0).unwrap();
    assert_eq!(encoder.scale(), 1.0);
    let mut codes = [1u8; 3];
    encoder.encode(&[bf16::ZERO; 3], &mut codes).unwrap();
    assert_eq!(codes, [0; 3]);
    assert_eq!(scale(1e-45), 1.0);
    assert!(scale(1e-40) > 0.0);
}

#[test]
fn an_amax_that_is_no_magnitude_is_refused() {
    for amax in [f32::NAN, f32::INFINITY, -1.0] {
        assert!(Encoder::<bf16>::new(amax).is_err());
    }
    let encoder = Encoder::<bf16>::new(1.0).unwrap();
    assert!(encoder.encode(&[bf16::ONE; 3], &mut [0; 4]).is_err());
    assert!(decode::<bf16>(&[0; 3], 1.0, &mut [bf16::ONE; 4]).is_err());
}

#[test]
fn decoding_gives_the_product_rounded_once() {
    let codes: Vec<u8> = (0..=u8::MAX).filter(|code| code & 0x7f != 0x7f).collect();
    let mut values = vec![bf16::ZERO; codes.len()];
    decode(&codes, 0.001_7, &mut values).unwrap();
    for (code, value) in codes.iter().zip(values) {
        assert_eq!(value, bf16::from_f32(e4m3::decode(*code) * 0.001_7));
    }
}

/// §3.3, one value at a time and by way of the code.
fn simulated(value: f32, amax: f32) -> f32 {
    let amax = if amax <= 2f32.powi(-24) { 1.0 } else { amax };
    let factor = 1.0 / amax * 448.0;
    let scaled = value * factor;
    let clamped = if scaled.is_nan() { scaled } else { scaled.clamp(-448.0, 448.0) };
    e4m3::decode(e4m3::encode(clamped)) * (1.0 / factor)
}

#[test]
fn simulation_follows_modelopt_for_every_bf16_value() {
    for amax in [0.0, 2f32.powi(-24), 2f32.powi(-23), 0.37, 5.0, 448.0, 1e4] {
        for set in SETS {
            let mut values: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
            let factor = if amax > SMALLEST_AMAX { 1.0 / amax * 448.0 } else { 448.0 };
            simulate_chunk(set(), &mut values, factor);
            for (bits, value) in (0..=u16::MAX).zip(values) {
                let expected = bf16::from_f32(simulated(bf16::from_bits(bits).to_f32(), amax));
                let is_same = value.to_bits() == expected.to_bits() || (value.is_nan() && expected.is_nan());
                assert!(is_same, "{bits:#x} {amax} {value} {expected}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Ragged lengths, values clipped by the amax, and all threads together equal one chunk after the other.
    #[test]
    fn any_length_encodes_alike_on_every_path(
        values in prop::collection::vec(-8f32..8.0, 0..700),
        amax in 0f32..8.0,
        zeros in 0usize..4,
    ) {
        let source: Vec<bf16> = values
            .iter()
            .enumerate()
            .map(|(i, value)| if zeros > 0 && i % (zeros + 1) == 0 { bf16::ZERO } else { bf16::from_f32(*value) })
            .collect();
        assert_codes_are_defined(&source, amax);
        let mut halves: Vec<f16> = values.iter().map(|value| f16::from_f32(*value)).collect();
        let before = halves.clone();
        simulate(&mut halves, amax);
        for (value, before) in halves.iter().zip(before) {
            prop_assert_eq!(*value, f16::from_f32(simulated(before.to_f32(), amax)));
        }
    }
}

#[test]
fn long_weights_encode_the_same_in_chunks_as_in_one_piece() {
    let source: Vec<bf16> = (0..3 * CHUNK + 77).map(|i| bf16::from_f32((i as f32 * 0.37).sin())).collect();
    let encoder = Encoder::<bf16>::new(1.0).unwrap();
    let (mut whole, mut chunked) = (vec![0; source.len()], vec![0; source.len()]);
    encoder.encode(&source, &mut chunked).unwrap();
    encoder.encode_chunk(InstructionSet::BASELINE, Stores::Cached, &source, &mut whole);
    assert_eq!(whole, chunked);
}

#[test]
fn many_scales_leave_the_quotient_in_f32() {
    let (rows, columns) = (5, 300);
    let source: Vec<bf16> =
        (0..rows * columns).map(|i| bf16::from_f32((i as f32 * 0.71).sin() * 3.0)).collect();
    for runs in [Runs::rows(columns), Runs::squares(columns, 128), Runs { columns, width: 7, height: 2 }] {
        let magnitudes = runs.magnitudes(&source);
        let scales: Vec<f32> = magnitudes.iter().map(|amax| amax / 448.0).collect();
        let mut codes = vec![0; source.len()];
        encode_scaled(&source, runs, &scales, &mut codes).unwrap();
        let mut back = vec![0f32; source.len()];
        decode_scaled(&codes, runs, &scales, &mut back).unwrap();
        let mut rounded: Vec<f32> = source.iter().map(|value| value.to_f32()).collect();
        simulate_scaled(&mut rounded, runs, &magnitudes);
        for (at, code) in codes.iter().enumerate() {
            let run = at / columns / runs.height * runs.across() + at % columns / runs.width;
            assert_eq!(*code, e4m3::encode(source[at].to_f32() / scales[run]));
            assert_eq!(back[at], e4m3::decode(*code) * scales[run]);
            assert_eq!(rounded[at], simulated(source[at].to_f32(), magnitudes[run]));
        }
    }
}

#[test]
fn each_token_is_rounded_under_its_own_magnitude() {
    let mut tokens: Vec<bf16> =
        (0..4 * 50).map(|i| bf16::from_f32((i as f32 * 0.3).cos() * (i / 50) as f32)).collect();
    let before = tokens.clone();
    simulate_tokens(&mut tokens, 50);
    for (row, after) in before.chunks(50).zip(tokens.chunks(50)) {
        let amax = row.iter().fold(0f32, |far, value| far.max(value.to_f32().abs()));
        let expected: Vec<bf16> =
            row.iter().map(|value| bf16::from_f32(simulated(value.to_f32(), amax))).collect();
        assert_eq!(after, expected);
    }
}
