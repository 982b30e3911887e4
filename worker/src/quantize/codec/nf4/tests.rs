//! NF4 against bitsandbytes' definition, one value at a time; `tests/bitsandbytes/run.sh` compares with the package itself.

use half::bf16;

use super::maps::{DYNAMIC, QUANTILES};
use super::*;

fn weights(length: usize) -> Vec<bf16> {
    (0..length).map(|i| bf16::from_f32((i as f32 * 0.83).sin() * (1 + i / 64 % 5) as f32 / 50.0)).collect()
}

/// The quantile nearest to a value, the lower one where two are equally near.
fn nearest(value: f32) -> u8 {
    let middle = |code: usize| (QUANTILES[code] + QUANTILES[code + 1]) / 2.0;
    (0..15).find(|code| value <= middle(*code)).unwrap_or(15) as u8
}

#[test]
fn codes_are_the_nearest_quantiles_with_the_first_element_in_the_high_nibble() {
    for length in [1usize, 2, 63, 64, 65, 1000, 64 * 300 + 17] {
        let source = weights(length);
        let mut codes = vec![0; length.div_ceil(2)];
        let magnitudes = encode(&source, &mut codes);
        assert_eq!(magnitudes.len(), length.div_ceil(64));
        for (at, value) in source.iter().enumerate() {
            let block = &source[at / 64 * 64..(at / 64 * 64 + 64).min(length)];
            let amax = block.iter().fold(0f32, |far, value| far.max(value.to_f32().abs()));
            assert_eq!(magnitudes[at / 64], amax);
            let amax = amax.max(1e-38);
            let scaled =
                if block.len() == 64 { value.to_f32() * (1.0 / amax) } else { value.to_f32() / amax };
            let code = if at % 2 == 0 { codes[at / 2] >> 4 } else { codes[at / 2] & 15 };
            assert_eq!(code, nearest(scaled), "{at} of {length}");
        }
        if length % 2 == 1 {
            assert_eq!(codes[length / 2] & 15, 7, "the nibble behind the end stands for zero");
        }
    }
}

#[test]
fn magnitudes_lose_at_most_half_a_step_of_the_dynamic_map() {
    let magnitudes: Vec<f32> = (0..700).map(|i| 0.02 + 0.01 * (i as f32 * 0.37).sin()).collect();
    let nested = Nested::encode(&magnitudes);
    assert_eq!((nested.codes.len(), nested.scales.len()), (700, 3));
    let widest = DYNAMIC.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f32::max);
    for (at, (before, after)) in magnitudes.iter().zip(nested.decode()).enumerate() {
        assert!((before - after).abs() <= 0.51 * widest * nested.scales[at / 256], "{before} became {after}");
    }
    let zeros = Nested::encode(&[0.0; 5]);
    assert!(zeros.decode().iter().all(|magnitude| *magnitude == 0.0));
}

#[test]
fn stored_weights_come_back_as_quantile_times_magnitude() {
    let (rows, columns) = (7, 91);
    let source = weights(rows * columns);
    let stored = parts(&source, [rows, columns]);
    let part = |name: &str| &stored.iter().find(|(suffix, _)| *suffix == name).unwrap().1[..];
    let stored = Stored {
        codes: part("weight"),
        absmax: part("weight.absmax"),
        nested_absmax: part("weight.nested_absmax"),
        nested_map: part("weight.nested_quant_map"),
        map: part("weight.quant_map"),
        state: part("weight.quant_state.bitsandbytes__nf4"),
    };
    let mut back = vec![bf16::ZERO; rows * columns];
    stored.decode([rows, columns], &mut back).unwrap();
    let mut codes = vec![0; source.len().div_ceil(2)];
    let magnitudes = Nested::encode(&encode(&source, &mut codes)).decode();
    for (at, value) in back.iter().enumerate() {
        let code = if at % 2 == 0 { codes[at / 2] >> 4 } else { codes[at / 2] & 15 };
        assert_eq!(*value, bf16::from_f32(QUANTILES[usize::from(code)] * magnitudes[at / 64]));
        // Half of the widest step between quantiles, and what the magnitude lost.
        let bound = 0.153 * magnitudes[at / 64] + 0.02 * magnitudes[at / 64];
        assert!((value.to_f32() - source[at].to_f32()).abs() <= bound + 1e-3);
    }
    assert!(stored.decode([columns, rows], &mut back).is_err(), "another shape");
    let broken = Stored { state: b"{}", ..stored };
    assert!(broken.decode([rows, columns], &mut back).is_err());
    let short = Stored { absmax: &part("weight.absmax")[1..], ..stored };
    assert!(short.decode([rows, columns], &mut back).is_err());
}
