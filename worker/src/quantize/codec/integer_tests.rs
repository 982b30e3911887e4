//! INT8 and INT4 against the definition, one value at a time.

use half::{bf16, f16};

use super::*;

const SETS: [fn() -> InstructionSet; 3] =
    [|| InstructionSet::BASELINE, || InstructionSet::detect().at_most_avx2(), InstructionSet::detect];

/// modelopt.md §3.4: divided, rounded to even, clamped.
fn defined(value: f32, scale: f32, largest: f32) -> i8 {
    (value / scale).round_ties_even().clamp(-largest - 1.0, largest) as i8
}

/// The same for a simulated value.
fn simulated(value: f32, amax: f32, largest: f32) -> f32 {
    let is_zero = amax <= 2f32.powi(-24);
    let factor = if is_zero { 0.0 } else { largest / amax };
    let rounded = (value * factor).round_ties_even().clamp(-largest - 1.0, largest);
    rounded / if is_zero { 1.0 } else { factor }
}

#[test]
fn every_bf16_value_gets_the_code_of_the_definition() {
    let source: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).filter(|value| value.is_finite()).collect();
    for scale in [1e-30f32, 0.000_7, 0.5, 3.0, 1e30] {
        for set in SETS {
            let mut codes = vec![0; source.len()];
            encode_some_rows(set(), &source, source.len(), &[scale], &mut codes);
            for (value, code) in source.iter().zip(&codes) {
                assert_eq!(*code as i8, defined(value.to_f32(), scale, 127.0), "{value} {scale}");
            }
        }
    }
}

#[test]
fn ties_go_to_the_even_code_and_the_ends_are_clamped() {
    let source = [0.5f32, 1.5, -0.5, -2.5, 126.5, 127.5, 200.0, -128.5, -300.0];
    let mut codes = [0; 9];
    encode_rows(&source, 9, &[1.0], &mut codes);
    assert_eq!(codes.map(|code| code as i8), [0, 2, 0, -2, 126, 127, 127, -128, -128]);
}

#[test]
fn two_rows_of_int4_share_bytes_and_come_back() {
    let (rows, columns, width) = (6, 20, 8);
    let runs = Runs::blocks(columns, width);
    let source: Vec<f16> =
        (0..rows * columns).map(|i| f16::from_f32((i * 7 % 41) as f32 / 4.0 - 5.0)).collect();
    let scales: Vec<f32> = runs.magnitudes(&source).iter().map(|amax| amax / 7.0).collect();
    for set in SETS {
        let mut codes = vec![0; rows * columns / 2];
        encode_some_pairs(set(), &source, runs, &scales, &mut codes);
        for row in 0..rows {
            for column in 0..columns {
                let byte = codes[row / 2 * columns + column];
                let nibble = if row % 2 == 0 { byte & 15 } else { byte >> 4 };
                let scale = scales[row * runs.across() + column / width];
                let expected = defined(source[row * columns + column].to_f32(), scale, 7.0);
                assert_eq!(nibble, expected as u8 & 15, "{row} {column}");
            }
        }
        let mut back = vec![0f32; source.len()];
        decode_row_pairs(&codes, runs, &scales, &mut back);
        for (at, value) in back.iter().enumerate() {
            let scale = scales[at / columns * runs.across() + at % columns / width];
            assert_eq!(*value, f32::from(defined(source[at].to_f32(), scale, 7.0)) * scale);
        }
    }
}

#[test]
fn simulations_follow_the_definition_for_every_bf16_value() {
    for range in [Range::INT8, Range::INT4] {
        for amax in [0.0, 2f32.powi(-24), 2f32.powi(-23), 0.37, 127.0, 1e4] {
            for set in SETS {
                let mut values: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
                let length = values.len();
                simulate_runs(set(), &mut values, length, &[amax], range);
                for (bits, value) in (0..=u16::MAX).zip(values) {
                    let before = bf16::from_bits(bits);
                    let expected = bf16::from_f32(simulated(before.to_f32(), amax, range.largest()));
                    let is_same = value == expected
                        || before.is_nan()
                        || (before.is_infinite() && amax <= 2f32.powi(-24));
                    assert!(is_same, "{before} under {amax} became {value}, not {expected}");
                    assert!(!before.is_nan() || value.is_nan());
                }
            }
        }
    }
}

#[test]
fn many_rows_encode_alike_on_all_threads_and_one_by_one() {
    let (rows, columns) = (300, 999);
    let source: Vec<bf16> = (0..rows * columns).map(|i| bf16::from_f32((i as f32 * 0.37).sin())).collect();
    let scales: Vec<f32> = (0..rows).map(|row| 0.004 + row as f32 * 1e-5).collect();
    let (mut together, mut alone) = (vec![0; source.len()], vec![0; source.len()]);
    encode_rows(&source, columns, &scales, &mut together);
    for row in 0..rows {
        let own = row * columns..(row + 1) * columns;
        encode_some_rows(
            InstructionSet::BASELINE,
            &source[own.clone()],
            columns,
            &scales[row..=row],
            &mut alone[own],
        );
    }
    assert_eq!(together, alone);
}
