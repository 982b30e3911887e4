//! What holds for activations and for weights of any type and spread: rounded values are within half a step, in order, and stay;
//! nothing becomes infinite, and what is not finite is refused.

use half::{bf16, f16};
use proptest::prelude::*;
use qlaunch_shared::checkpoint::DType;
use qlaunch_shared::numerics::{Format, Nvfp4Scales};

use super::property_tests::{FORMATS, shape, stored_and_back};
use super::*;
use crate::tensor::host::HostTensor;

const NVFP4_32: Format = Format::Nvfp4 { block: 32, scales: Nvfp4Scales::Dynamic };

/// Every format of activations.
const ACTIVATIONS: [Format; 9] = [
    Format::Fp8,
    Format::Fp8Token,
    Format::Int8,
    Format::NVFP4,
    NVFP4_32,
    Format::Mxfp4,
    Format::Mxfp6,
    Format::Mxfp8,
    Format::Mxint8,
];

/// Half the distance between neighbours of a float code with so many mantissa bits, around a magnitude.
fn half_float_step(magnitude: f32, mantissa: i32, smallest: i32) -> f32 {
    let exponent = (magnitude.max(1e-30).log2().floor() as i32).max(smallest);
    2f32.powi(exponent - mantissa - 1)
}

/// The most that rounding may move a value, where its block's largest magnitude is `own` and the tensor's `amax`.
fn bound(format: Format, value: f32, (own, amax): (f32, f32)) -> f32 {
    let value = value.abs();
    let power = |largest: f32| 2f32.powi((own.max(1e-37) / largest).log2().ceil() as i32);
    match format {
        Format::Fp8 => half_float_step(value / amax * 448.0, 3, -6) * amax / 448.0,
        Format::Fp8Token => half_float_step(value / own * 448.0, 3, -6) * own / 448.0,
        Format::Int8 => amax / 127.0 / 2.0,
        // The block's scale is rounded itself, by a sixteenth at most; what lies beyond six steps is cut.
        Format::Nvfp4 { .. } => {
            let step = own / 6.0 * (17.0 / 16.0);
            half_float_step(value / own * 6.0 * (16.0 / 15.0), 1, 0) * step
        }
        Format::Mxfp4 => half_float_step(value / power(6.0), 1, 0) * power(6.0),
        Format::Mxfp6 => half_float_step(value / power(28.0), 2, -2) * power(28.0),
        Format::Mxfp8 => half_float_step(value / power(448.0), 3, -6) * power(448.0),
        _ => power(127.0) / 2.0,
    }
}

/// Values of a row that share a scale.
fn width(format: Format, columns: usize) -> usize {
    match format {
        Format::Fp8 | Format::Int8 | Format::Fp8Token => columns,
        Format::Nvfp4 { block, .. } => block as usize,
        _ => 32,
    }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0f32, |far, value| far.max(value.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rounded_activations_are_within_half_a_step_in_order_and_stay(
        seed in prop::collection::vec(-4f32..4.0, 3..97),
        rows in 1usize..5,
        columns in 1usize..140,
        zero_block in 0usize..6,
    ) {
        // One row, one block and ragged tails among them; NVFP4 and MX take what is left of a row as a block.
        for format in ACTIVATIONS {
            let share = width(format, columns);
            let values: Vec<f32> = (0..rows * columns).map(|i| {
                let value = seed[i % seed.len()] * if i % 7 == 3 { 1.0 } else { 0.125 };
                if i % columns / share == zero_block { 0.0 } else { value }
            }).collect();
            let amax = largest(&values);
            if amax == 0.0 {
                continue;
            }
            let mut rounded = values.clone();
            simulate_activation(&mut rounded, columns, format, amax).unwrap();
            for (row, (before, after)) in values.chunks(columns).zip(rounded.chunks(columns)).enumerate() {
                for (block, (before, after)) in before.chunks(share).zip(after.chunks(share)).enumerate() {
                    let own = largest(before);
                    for (i, (old, new)) in before.iter().zip(after).enumerate() {
                        let most = if own == 0.0 { 0.0 } else { bound(format, *old, (own, amax)) * 1.001 };
                        prop_assert!((old - new).abs() <= most, "{format} row {row} block {block}: {old} became {new}, {most} at most");
                        for j in 0..i {
                            let kept = (old <= &before[j]) == (new <= &after[j]) || new == &after[j];
                            prop_assert!(kept, "{format}: {old} and {} became {new} and {}", before[j], after[j]);
                        }
                    }
                }
            }
            let mut again = rounded.clone();
            simulate_activation(&mut again, columns, format, amax).unwrap();
            let moved = rounded.iter().zip(&again).find(|(a, b)| (*a - *b).abs() > 1e-6 * a.abs());
            prop_assert!(moved.is_none(), "{format} {rows} × {columns}: {moved:?}");
        }
    }

    #[test]
    fn weights_of_any_spread_and_type_stay_finite_in_order_and_themselves(
        seed in prop::collection::vec(-1f32..1.0, 3..97),
        powers in prop::collection::vec(-12i32..5, 1..9),
        rows in 1usize..4,
        columns in 1usize..100,
    ) {
        // Blocks that differ by up to 2^16: the small ones of NVFP4 fall below the smallest scale.
        for format in FORMATS {
            for dtype in [DType::BF16, DType::F16, DType::F32] {
                let shape = shape(format, rows, columns);
                let block = format.block().unwrap_or(16);
                let values = (0..shape[0] * shape[1])
                    .map(|i| seed[i % seed.len()] * 2f32.powi(powers[i / block % powers.len()]))
                    .collect::<Vec<f32>>();
                let weight = HostTensor::new::<f32>(shape, values).unwrap().view().cast(dtype).unwrap();
                let found = magnitudes(weight.view(), format).unwrap();
                let back = stored_and_back(&weight, format, &found).to_f32();
                let before = weight.to_f32();
                prop_assert!(back.iter().all(|value| value.is_finite()), "{format} {dtype}");
                let reach = largest(&before);
                for (old, new) in before.iter().zip(&back) {
                    // A magnitude just above 5 of E2M1's 6 becomes 6; no other code is further from what it stands for.
                    prop_assert!(new.abs() <= 1.21 * reach, "{format} {dtype}: {old} became {new} of {reach}");
                }
                if format == Format::Nf4 {
                    // Its magnitudes are rounded to eight bits around their mean: small ones beside large ones are lost.
                    continue;
                }
                for (old, new) in before.iter().zip(&back) {
                    prop_assert!(old * new >= 0.0, "{format} {dtype}: {old} became {new}, of the other sign");
                }
                let kept = HostTensor::new::<f32>(shape, back.clone()).unwrap().view().cast(dtype).unwrap();
                let fine = if found.fine.is_empty() { Vec::new() } else { found.fine.clone() };
                let own = magnitudes(kept.view(), format).unwrap();
                let again = Magnitudes { fine: if fine.is_empty() { own.fine } else { fine }, tensor: found.tensor };
                // Dynamic NVFP4 finds the scale of a block anew, which below its smallest one is another.
                if !is_scaled_by_block(format) {
                    prop_assert_eq!(stored_and_back(&kept, format, &again).to_f32(), back, "{} {}", format, dtype);
                }
            }
        }
    }
}

const fn is_scaled_by_block(format: Format) -> bool {
    matches!(format, Format::Nvfp4 { scales: Nvfp4Scales::Dynamic | Nvfp4Scales::UnderFp8, .. })
}

#[test]
fn nf4_keeps_the_order_of_a_block_and_comes_back_from_its_own_values() {
    for length in [1usize, 63, 64, 130, 64 * 256 + 5] {
        let values: Vec<bf16> = (0..length).map(|i| bf16::from_f32((i as f32 * 0.717).sin() * 0.3)).collect();
        let weight = HostTensor::new([1, length], values).unwrap();
        let none = Magnitudes::default();
        let back = stored_and_back(&weight, Format::Nf4, &none);
        let (before, after) = (weight.to_f32(), back.to_f32());
        for (before, after) in before.chunks(64).zip(after.chunks(64)) {
            let own = largest(before);
            for i in 0..before.len() {
                // Half of the widest distance of quantiles, and what the nested magnitudes lose.
                assert!(
                    (before[i] - after[i]).abs() <= 0.153 * own + 0.02 * own + 2e-3,
                    "{} {}",
                    before[i],
                    after[i]
                );
                for j in 0..i {
                    assert!((before[i] <= before[j]) == (after[i] <= after[j]) || after[i] == after[j]);
                }
            }
        }
    }
}

#[test]
fn activations_that_are_not_finite_poison_nothing_but_their_own_scale() {
    for format in ACTIVATIONS {
        let columns = 64;
        for bad in [f16::NAN, f16::INFINITY, f16::NEG_INFINITY] {
            let mut values: Vec<f16> = (0..3 * columns).map(|i| f16::from_f32((i as f32).sin())).collect();
            let mut clean = values.clone();
            values[columns + 3] = bad;
            simulate_activation(&mut values, columns, format, 1.0).unwrap();
            simulate_activation(&mut clean, columns, format, 1.0).unwrap();
            // Other rows share no scale that comes from the values at hand.
            for row in [0, 2] {
                let at = row * columns..(row + 1) * columns;
                assert_eq!(values[at.clone()], clean[at], "{format} {bad}");
            }
        }
    }
}
