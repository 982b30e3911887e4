//! NVFP4 codes and scales against the definition, for every bf16 input, every instruction set and odd shapes.

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;

const SETS: [fn() -> InstructionSet; 3] =
    [|| InstructionSet::BASELINE, || InstructionSet::detect().at_most_avx2(), InstructionSet::detect];

/// modelopt.md §3.5, one block after the other, in the words of the spec.
fn defined(source: &[f32], amax: f32, block: usize) -> (Vec<u8>, Vec<u8>) {
    let scale_2 = amax / 2688.0;
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for values in source.chunks(block) {
        let largest = values.iter().fold(0f32, |far, value| far.max(value.abs()));
        let scale = largest / (6.0 * scale_2);
        let scale = if scale == 0.0 { 1.0 } else { scale }.clamp(2f32.powi(-9), 448.0);
        scales.push(e4m3::encode(scale));
        let divisor = e4m3::decode(e4m3::encode(scale)) * scale_2;
        for pair in values.chunks(2) {
            let [even, odd] = [pair[0], pair[1]].map(|value| nibble(value / divisor));
            codes.push(even | odd << 4);
        }
    }
    (codes, scales)
}

/// NV:230-250.
fn nibble(quotient: f32) -> u8 {
    let middles = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0];
    let below = middles.iter().filter(|&&middle| middle < quotient.abs()).count() as u8;
    let tie = u8::from([0.75, 1.75, 3.5].contains(&quotient.abs()));
    below + tie + if quotient < 0.0 { 8 } else { 0 }
}

fn assert_is_defined<E: Source>(source: &[E], amax: f32, block: usize) {
    let encoder = Encoder::<E>::new(amax, block).unwrap();
    let wide: Vec<f32> = source.iter().map(|value| value.to_f32()).collect();
    let expected = defined(&wide, amax, block);
    for set in SETS {
        let (mut codes, mut scales) = (vec![0x55; source.len() / 2], vec![0x55; source.len() / block]);
        let target = Encoded { codes: &mut codes, scales: &mut scales };
        encoder.encode_chunk(set(), source, target);
        assert_eq!(scales, expected.1, "scales, amax {amax:e}, {:?}", set());
        for (at, (code, expected)) in codes.iter().zip(&expected.0).enumerate() {
            let pair = [wide[2 * at], wide[2 * at + 1]];
            assert_eq!(code, expected, "amax {amax:e}, values {pair:?}, {:?}", set());
        }
    }
}

/// Every finite bf16 value in blocks of neighbours: each block has the scale that its largest asks for.
fn every_finite_bf16() -> Vec<bf16> {
    let magnitudes = 0..0x7f80u16;
    magnitudes.flat_map(|bits| [bf16::from_bits(bits), bf16::from_bits(bits | 0x8000)]).collect()
}

#[test]
fn every_bf16_value_gets_the_code_of_the_definition_under_many_scales() {
    let source = every_finite_bf16();
    for bits in (0x0001u16..0x7f80).step_by(509) {
        assert_is_defined(&source, bf16::from_bits(bits).to_f32(), 16);
    }
    assert_is_defined(&source, 1.0, 32);
}

/// All values below the block's largest, under every one of the 126 block scales.
#[test]
fn every_bf16_value_gets_the_code_of_the_definition_under_every_block_scale() {
    let amax = 0.304_687_5;
    let steps = Encoder::<bf16>::new(amax, 16).unwrap();
    for code in 1..=e4m3::LARGEST_CODE {
        let largest = bf16::from_f32(e4m3::decode(code) * steps.tensor.sixfold);
        let mut source = Vec::new();
        for bits in (0..=largest.to_bits()).rev().take(3000).collect::<Vec<_>>().chunks(15) {
            source.push(largest);
            source.extend(bits.iter().map(|bits| bf16::from_bits(bits | (bits & 1) << 15)));
            source.resize(source.len().next_multiple_of(16), bf16::ZERO);
        }
        assert_is_defined(&source, amax, 16);
    }
}

#[test]
fn f16_and_f32_follow_the_definition() {
    let source: Vec<f16> =
        (0..0x7c00u16).flat_map(|bits| [f16::from_bits(bits), f16::from_bits(bits | 0x8000)]).collect();
    for amax in [0.0001f32, 0.3, 7.0, 65504.0] {
        assert_is_defined(&source, amax, 16);
        assert_is_defined(&source, amax, 32);
        let wide: Vec<f32> = source.iter().map(|value| value.to_f32() * 0.999_9).collect();
        assert_is_defined(&wide, amax, 16);
    }
}

#[test]
fn the_documented_tie_of_the_dynamic_scale_holds() {
    // modelopt.md §3.5: g = 0.3046875, a = 0.228515625 gives 336.00003, not 336, which is a tie between codes.
    let tensor = TensorScale::new(0.304_687_5, REACH);
    assert_eq!(0.228_515_63f32 / tensor.sixfold, 336.000_03);
    assert_eq!(e4m3::decode(tensor.block_code(0.228_515_63)), 352.0);
}

#[test]
fn a_weight_or_a_block_of_zeros_gets_finite_positive_scales() {
    for (amax, scale_2) in [(0.0, 6.0 / 2688.0), (2688.0, 1.0)] {
        let encoder = Encoder::<bf16>::new(amax, 16).unwrap();
        assert_eq!(encoder.scale_2(), scale_2);
        let (mut codes, mut scales) = ([1u8; 24], [0u8; 3]);
        let target = Encoded { codes: &mut codes, scales: &mut scales };
        encoder.encode(&[bf16::ZERO; 48], 48, target).unwrap();
        assert_eq!(codes, [0; 24]);
        assert_eq!(scales, [e4m3::encode(1.0); 3]);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for amax in [f32::NAN, f32::INFINITY, -1.0] {
        assert!(Encoder::<bf16>::new(amax, 16).is_err());
    }
    assert!(Encoder::<bf16>::new(1.0, 0).is_err());
    assert!(Encoder::<bf16>::new(1.0, 24).is_err());
    let encoder = Encoder::<bf16>::new(1.0, 16).unwrap();
    let (mut codes, mut scales) = ([0; 20], [0; 2]);
    let error =
        encoder.encode(&[bf16::ONE; 40], 40, Encoded { codes: &mut codes, scales: &mut scales }).unwrap_err();
    assert!(error.message.contains("40 elements") && error.hint.is_some(), "{error}");
    let source = [bf16::ONE; 32];
    assert!(encoder.encode(&source, 32, Encoded { codes: &mut codes, scales: &mut scales }).is_err());
    let parts = Parts { codes: &codes, scales: &scales, scale_2: 1.0, block: 16 };
    assert!(decode(parts, &mut [bf16::ONE; 32]).is_err());
}

#[test]
fn decoding_gives_the_product_rounded_once() {
    let codes: Vec<u8> = (0..=u8::MAX).collect();
    let scales: Vec<u8> = (1..=32).map(|i| i * 3).collect();
    let mut values = vec![bf16::ZERO; 512];
    decode(Parts { codes: &codes, scales: &scales, scale_2: 0.001_7, block: 16 }, &mut values).unwrap();
    for (at, value) in values.iter().enumerate() {
        let code = codes[at / 2] >> (4 * (at % 2)) & 15;
        let scale = e4m3::decode(scales[at / 16]) * 0.001_7;
        assert_eq!(*value, bf16::from_f32(e2m1::decode(code) * scale));
    }
}

/// `fp4_fake_quant_block`, one row at a time, with the rounding of §3.5 by code.
fn simulated(row: &[f32], amax: f32, block: usize) -> Vec<f32> {
    let tensor = if amax / 2688.0 > 0.0 { amax / 2688.0 } else { 1e-12 };
    let mut result = Vec::new();
    for values in row.chunks(block) {
        let largest = values.iter().fold(0f32, |far, value| far.max(value.abs()));
        let scale = e4m3::decode(e4m3::encode((largest / (6.0 * tensor)).min(448.0))) * tensor;
        let scale = if scale >= 1e-5 { scale } else { 1.0 };
        for value in values {
            let magnitude = e2m1::decode(nibble(value.abs() / scale)) * scale;
            result.push(if *value >= 0.0 { magnitude } else { -magnitude });
        }
    }
    result
}

#[test]
fn simulation_keeps_nan_and_saturates_infinity() {
    let mut values = [bf16::from_f32(1.0); 32];
    values[3] = bf16::NAN;
    values[16] = bf16::INFINITY;
    simulate(&mut values, 32, 2688.0, 16);
    assert!(values[3].is_nan());
    assert_eq!(values[0].to_f32(), 1.0);
    assert_eq!(values[16].to_f32(), 6.0 * 448.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// One row, one block, ragged numbers of blocks; an amax below the block's own clips its scale.
    #[test]
    fn any_shape_encodes_alike_on_every_path(
        blocks in 1usize..50,
        rows in 1usize..4,
        exponent in -30i32..10,
        amax in 0.01f32..4.0,
        seed in any::<u32>(),
    ) {
        for block in [16, 32] {
            let unit = 2f32.powi(exponent);
            let source: Vec<bf16> = (0..rows * blocks * block)
                .map(|i| bf16::from_f32(((i as u32).wrapping_mul(2_654_435_761) ^ seed) as i32 as f32 * 4e-10 * unit))
                .collect();
            assert_is_defined(&source, amax * unit, block);
            let (mut codes, mut scales) = (vec![0; source.len() / 2], vec![0; source.len() / block]);
            let target = Encoded { codes: &mut codes, scales: &mut scales };
            let encoder = Encoder::<bf16>::new(amax * unit, block).unwrap();
            encoder.encode(&source, blocks * block, target).unwrap();
            let wide: Vec<f32> = source.iter().map(|value| value.to_f32()).collect();
            prop_assert_eq!((codes, scales), defined(&wide, amax * unit, block));
        }
    }

    /// Rows that blocks do not fill are simulated as if filled up with zeros.
    #[test]
    fn simulation_follows_modelopt_on_ragged_rows(
        values in prop::collection::vec(-8f32..8.0, 1..200),
        columns in 1usize..70,
        amax in 0f32..16.0,
        block in prop::sample::select(vec![16usize, 32]),
    ) {
        let rows = values.len().div_ceil(columns);
        let source: Vec<f16> = (0..rows * columns).map(|i| f16::from_f32(values[i % values.len()])).collect();
        let mut simulated_in_place = source.clone();
        simulate(&mut simulated_in_place, columns, amax, block);
        let expected = source.chunks(columns).flat_map(|row| {
            let wide: Vec<f32> = row.iter().map(|value| value.to_f32()).collect();
            simulated(&wide, amax, block)
        });
        for (value, expected) in simulated_in_place.iter().zip(expected) {
            prop_assert_eq!(value.to_bits(), f16::from_f32(expected).to_bits());
        }
    }
}

#[test]
fn long_weights_encode_the_same_in_chunks_as_in_one_piece() {
    let source: Vec<bf16> = (0..3 * CHUNK + 80).map(|i| bf16::from_f32((i as f32 * 0.37).sin())).collect();
    let encoder = Encoder::<bf16>::new(1.0, 16).unwrap();
    let mut parts = [0, 1].map(|_| (vec![0; source.len() / 2], vec![0; source.len() / 16]));
    let [(codes, scales), _] = &mut parts;
    encoder.encode(&source, source.len(), Encoded { codes, scales }).unwrap();
    let [_, (codes, scales)] = &mut parts;
    encoder.encode_chunk(InstructionSet::BASELINE, &source, Encoded { codes, scales });
    assert_eq!(parts[0], parts[1]);
}
