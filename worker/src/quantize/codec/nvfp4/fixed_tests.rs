//! Static NVFP4 in the words of the spec (modelopt.md §3.5), and where it differs from the dynamic path.

use half::bf16;

use super::super::{Encoder, REACH};
use super::*;

fn source() -> Vec<bf16> {
    (0..64 * 16).map(|i| bf16::from_f32((i as f32 * 0.39).sin() * (1.0 + (i / 16) as f32) / 70.0)).collect()
}

fn encoded(source: &[bf16], scales: FixedScales, magnitudes: &[f32]) -> (Vec<u8>, Vec<u8>) {
    let (mut codes, mut own) = (vec![0; source.len() / 2], vec![0; source.len() / 16]);
    encode_fixed(source, scales, magnitudes, Encoded { codes: &mut codes, scales: &mut own }).unwrap();
    (codes, own)
}

#[test]
fn scales_and_codes_follow_the_definition_for_both_ceilings() {
    let source = source();
    for (ceiling, stretch) in [(448.0f32, 1.0f32), (448.0, 0.6), (256.0, 1.5), (256.0, 1.0)] {
        let amax = 0.871_093_75;
        let magnitudes: Vec<f32> = source
            .chunks(16)
            .map(|block| stretch * block.iter().fold(0f32, |far, value| far.max(value.to_f32().abs())))
            .collect();
        let scales = FixedScales::new(amax, ceiling, 16);
        assert_eq!(scales.scale_2(), amax / (6.0 * ceiling));
        let (codes, own) = encoded(&source, scales, &magnitudes);
        for (at, block) in source.chunks(16).enumerate() {
            let wished = magnitudes[at] / 6.0 * ceiling / (amax / 6.0);
            assert_eq!(own[at], e4m3::encode(wished.clamp(2f32.powi(-9), 448.0)));
            let divisor = e4m3::decode(own[at]) * scales.scale_2();
            for (column, value) in block.iter().enumerate() {
                let byte = codes[at * 8 + column / 2];
                assert_eq!((byte >> (4 * (column % 2))) & 15, e2m1::encode(value.to_f32() / divisor));
            }
        }
    }
}

#[test]
fn the_order_of_operations_differs_from_the_dynamic_path() {
    // modelopt.md §3.5: 336.000_03 and 336, a tie between two codes.
    let (amax, block_amax) = (0.304_687_5f32, 0.228_515_62f32);
    let mut source = vec![bf16::ZERO; 16];
    source[3] = bf16::from_f32(block_amax);
    let (_, fixed) = encoded(&source, FixedScales::new(amax, 448.0, 16), &[block_amax]);
    let (mut codes, mut dynamic) = (vec![0; 8], vec![0; 1]);
    let encoder = Encoder::<bf16>::reaching(amax, 16, REACH).unwrap();
    encoder.encode(&source, 16, Encoded { codes: &mut codes, scales: &mut dynamic }).unwrap();
    assert_eq!((e4m3::decode(fixed[0]), e4m3::decode(dynamic[0])), (320.0, 352.0));
}

#[test]
fn a_block_of_no_magnitude_gets_the_largest_scale_and_is_simulated_as_zeros() {
    let mut source = source();
    source[..16].fill(bf16::ZERO);
    let mut magnitudes = vec![0.5; 64];
    magnitudes[0] = 0.0;
    let scales = FixedScales::new(0.9, 448.0, 16);
    let (codes, own) = encoded(&source, scales, &magnitudes);
    assert_eq!((own[0], &codes[..8]), (e4m3::LARGEST_CODE, &[0u8; 8][..]));
    let mut values: Vec<f32> = source.iter().map(|value| value.to_f32()).collect();
    values[..16].fill(0.25);
    simulate_fixed(&mut values, scales, &magnitudes);
    assert!(values[..16].iter().all(|value| *value == 0.0));
    assert!(
        encode_fixed(&source, scales, &[1.0], Encoded { codes: &mut [0; 8], scales: &mut [0; 1] }).is_err()
    );
}

#[test]
fn simulation_uses_fp8s_own_rounding_of_a_sixth_of_the_magnitude() {
    let magnitudes: Vec<f32> = (0..64).map(|block| 0.013 * (1 + block) as f32).collect();
    for ceiling in [448.0f32, 256.0] {
        let mut values: Vec<f32> = source().iter().map(|value| value.to_f32()).collect();
        let before = values.clone();
        simulate_fixed(&mut values, FixedScales::new(0.832, ceiling, 16), &magnitudes);
        let mut sixths: Vec<f32> = magnitudes.iter().map(|amax| amax / 6.0).collect();
        fp8::simulate(&mut sixths, 0.832 * (448.0 / ceiling) / 6.0);
        for (at, (before, after)) in before.iter().zip(&values).enumerate() {
            let scale = sixths[at / 16];
            let rounded = e2m1::decode(e2m1::encode((before / scale).abs())) * scale;
            assert_eq!(*after, rounded.copysign(*before), "{before}");
        }
    }
}
