//! What holds for every format of weights: decoded values are within half a step, in order, and stay when encoded again.

use half::bf16;
use proptest::prelude::*;
use qlaunch_shared::checkpoint::DType;
use qlaunch_shared::numerics::{Format, Nvfp4Scales, Side};

use super::codec::{e2m1, e4m3};
use super::*;
use crate::tensor::host::HostTensor;

const fn nvfp4(block: u32, scales: Nvfp4Scales) -> Format {
    Format::Nvfp4 { block, scales }
}

/// Every format of weights, with blocks small enough for small shapes.
pub(super) const FORMATS: [Format; 18] = [
    Format::Fp8,
    Format::Fp8Channel,
    Format::Fp8Block { block: 128 },
    Format::Fp8Block { block: 4 },
    Format::Int8Channel,
    Format::Int4 { block: 16 },
    Format::Int4 { block: 128 },
    Format::Int4Fp8 { block: 16 },
    Format::NVFP4,
    nvfp4(32, Nvfp4Scales::Dynamic),
    nvfp4(16, Nvfp4Scales::Static),
    nvfp4(16, Nvfp4Scales::FourOverSix),
    nvfp4(32, Nvfp4Scales::UnderFp8),
    Format::Mxfp4,
    Format::Mxfp6,
    Format::Mxfp8,
    Format::Mxint8,
    Format::Nf4,
];

/// A weight as it comes back from its stored form.
pub(super) fn stored_and_back(weight: &HostTensor, format: Format, magnitudes: &Magnitudes) -> HostTensor {
    let &[rows, columns] = weight.shape() else { panic!("no matrix") };
    let stored = quantize_weight(weight.view(), format, magnitudes).unwrap();
    let planned = format.weight_parts(rows, columns, weight.view().dtype());
    assert_eq!(stored.len(), planned.len());
    for ((suffix, bytes), part) in stored.iter().zip(&planned) {
        assert_eq!(*suffix, part.suffix);
        assert_eq!(
            bytes.len(),
            part.shape.iter().product::<usize>() * part.dtype.size(),
            "{format} {suffix}"
        );
    }
    let parts = |name: &str| Ok(&stored.iter().find(|(suffix, _)| *suffix == name).unwrap().1[..]);
    decode_weight(format, [rows, columns], &parts, weight.view().dtype()).unwrap()
}

/// Half the distance between neighbours of a code around a scaled magnitude, and what the format clips beyond.
fn half_step(format: Format, scaled: f32) -> f32 {
    let float = |mantissa: i32, smallest_exponent: i32| {
        let exponent = (scaled.max(1e-30).log2().floor() as i32).max(smallest_exponent);
        2f32.powi(exponent - mantissa - 1)
    };
    match format {
        Format::Fp8 | Format::Fp8Channel | Format::Fp8Block { .. } | Format::Mxfp8 => float(3, -6),
        Format::Mxfp6 => float(2, -2),
        // Where the block's scale was rounded down, values up to 6 · 17/16 are cut to 6.
        Format::Nvfp4 { .. } | Format::Mxfp4 => float(1, 0),
        _ => 0.5,
    }
}

/// The scale that each element's code is multiplied with, from the stored tensors.
fn scales_of(weight: &HostTensor, format: Format, magnitudes: &Magnitudes) -> Vec<f32> {
    let &[rows, columns] = weight.shape() else { panic!("no matrix") };
    let stored = quantize_weight(weight.view(), format, magnitudes).unwrap();
    let part = |name: &str| stored.iter().find(|(suffix, _)| *suffix == name).unwrap().1.clone();
    let floats = |name: &str| -> Vec<f32> {
        part(name).as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
    };
    let at = |row: usize, column: usize| match format {
        Format::Fp8 => floats("weight_scale")[0],
        Format::Fp8Channel | Format::Int8Channel => floats("weight_scale")[row],
        Format::Fp8Block { block } => {
            let block = block as usize;
            floats("weight_scale")[row / block * columns.div_ceil(block) + column / block]
        }
        Format::Int4 { block } | Format::Int4Fp8 { block } => {
            floats("weight_scale")[row * (columns / block as usize) + column / block as usize]
        }
        Format::Nvfp4 { block, .. } => {
            let code = part("weight_scale")[(row * columns + column) / block as usize];
            e4m3::decode(code) * floats("weight_scale_2")[0]
        }
        _ => 2f32.powi(i32::from(part("weight_scale")[(row * columns + column) / 32]) - 127),
    };
    (0..rows * columns).map(|i| at(i / columns, i % columns)).collect()
}

fn weight(format: Format, seed: &[f32], shape: [usize; 2], zero_block: usize) -> HostTensor {
    // Blocks span the range in which block scales are normal numbers.
    let values = (0..shape[0] * shape[1]).map(|i| {
        let value = seed[i % seed.len()] * if i % 7 == 3 { 1.0 } else { 0.125 };
        let block = format.block().unwrap_or(16);
        if i / block == zero_block { bf16::ZERO } else { bf16::from_f32(value) }
    });
    HostTensor::new(shape, values.collect::<Vec<_>>()).unwrap()
}

/// A shape that the format takes: one row or one block now and then, ragged where it may be.
pub(super) fn shape(format: Format, rows: usize, columns: usize) -> [usize; 2] {
    let block = match format {
        Format::Nf4 => 1,
        _ => format.block().unwrap_or(1),
    };
    let pairs = matches!(format, Format::Int4 { .. } | Format::Int4Fp8 { .. });
    let columns = if block == 1 { columns } else { block * (1 + columns % 3) };
    [if pairs { 2 * rows } else { rows }, columns]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn decoded_weights_are_within_half_a_step_in_order_and_stay(
        seed in prop::collection::vec(-4f32..4.0, 3..97),
        rows in 1usize..5,
        columns in 1usize..140,
        zero_block in 0usize..6,
    ) {
        for format in FORMATS {
            let shape = shape(format, rows, columns);
            let weight = weight(format, &seed, shape, zero_block);
            let found = magnitudes(weight.view(), format).unwrap();
            let back = stored_and_back(&weight, format, &found);
            let (before, after) = (weight.to_f32(), back.to_f32());
            prop_assert!(after.iter().all(|value| value.is_finite()), "{format} {shape:?}");
            if format == Format::Nf4 {
                continue;
            }
            let scales = scales_of(&weight, format, &found);
            for (i, (old, new)) in before.iter().zip(&after).enumerate() {
                // The decoded value is rounded to bf16, plain FP8's quotient too, and W4A8's value once more to E4M3.
                let more = match format {
                    Format::Int4Fp8 { .. } => 1.0 / 16.0,
                    Format::Fp8 => 1.0 / 128.0,
                    _ => 1.0 / 256.0,
                };
                let bound = half_step(format, old.abs() / scales[i]) * scales[i] * 1.001 + old.abs().max(new.abs()) * more;
                prop_assert!((old - new).abs() <= bound + 1e-30, "{format} {shape:?} {i}: {old} became {new}, scale {}", scales[i]);
                for j in (0..i).rev().take(shape[1].min(130)).filter(|j| scales[*j] == scales[i]) {
                    let kept = (old <= &before[j]) == (new <= &after[j]) || new == &after[j];
                    prop_assert!(kept, "{format}: {old} and {} became {new} and {}", before[j], after[j]);
                }
            }
            let again = magnitudes_again(&back, format, &found);
            prop_assert_eq!(stored_and_back(&back, format, &again).to_f32(), after, "{} {:?}", format, shape);
        }
    }
}

/// The magnitudes of a weight's second encoding: calibration keeps the first ones.
fn magnitudes_again(back: &HostTensor, format: Format, first: &Magnitudes) -> Magnitudes {
    let own = magnitudes(back.view(), format).unwrap();
    Magnitudes {
        fine: if first.fine.is_empty() { own.fine } else { first.fine.clone() },
        tensor: first.tensor,
    }
}

#[test]
fn zero_weights_get_finite_scales_and_decode_to_zeros() {
    for format in FORMATS {
        let shape = shape(format, 2, 33);
        let zeros = HostTensor::new(shape, vec![bf16::ZERO; shape[0] * shape[1]]).unwrap();
        let found = magnitudes(zeros.view(), format).unwrap();
        let back = stored_and_back(&zeros, format, &found);
        assert!(back.to_f32().iter().all(|value| *value == 0.0), "{format}");
        for (suffix, bytes) in quantize_weight(zeros.view(), format, &found).unwrap() {
            if suffix.starts_with("weight_scale")
                && bytes.len() % 4 == 0
                && !matches!(format, Format::Nvfp4 { .. })
            {
                let is_byte =
                    matches!(format, Format::Mxfp4 | Format::Mxfp6 | Format::Mxfp8 | Format::Mxint8);
                let words = bytes.as_chunks::<4>().0;
                assert!(
                    is_byte || words.iter().all(|word| f32::from_le_bytes(*word) > 0.0),
                    "{format} {suffix}"
                );
            }
        }
    }
}

#[test]
fn a_weight_that_is_not_finite_is_refused_by_every_format() {
    for format in FORMATS {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let shape = shape(format, 2, 64);
            let mut values = vec![bf16::ONE; shape[0] * shape[1]];
            values[5] = bf16::from_f32(bad);
            let weight = HostTensor::new(shape, values).unwrap();
            let error = magnitudes(weight.view(), format).unwrap_err();
            assert!(error.message.contains("not finite: its element 5"), "{format}: {error}");
        }
        let shape = shape(format, 2, 64);
        let weight = HostTensor::new(shape, vec![bf16::ONE; shape[0] * shape[1]]).unwrap();
        let mut wrong = magnitudes(weight.view(), format).unwrap();
        wrong.tensor = f32::NAN;
        assert!(quantize_weight(weight.view(), format, &wrong).is_err(), "{format}");
        let ragged = Magnitudes { fine: vec![1.0; 1000], tensor: 1.0 };
        assert!(quantize_weight(weight.view(), format, &ragged).is_err(), "{format}");
    }
}

#[test]
fn a_shape_that_a_format_cannot_store_is_refused() {
    let misfits = [
        (Format::NVFP4, [2, 24]),
        (Format::Mxfp8, [2, 16]),
        (Format::Int4 { block: 128 }, [2, 64]),
        (Format::Int4 { block: 16 }, [3, 16]),
    ];
    for (format, shape) in misfits {
        let weight = HostTensor::new(shape, vec![bf16::ONE; shape[0] * shape[1]]).unwrap();
        let error = magnitudes(weight.view(), format).unwrap_err();
        assert!(error.hint.is_some(), "{format}: {error}");
    }
}

/// What simulation leaves of a weight is what its stored form gives, where ModelOpt's two paths agree.
#[test]
fn simulated_weights_are_the_stored_ones_up_to_the_last_place() {
    for format in FORMATS {
        let shape = shape(format, 3, 77);
        let seed: Vec<f32> = (0..89).map(|i| ((i * 37 % 89) as f32 - 44.3) / 17.0).collect();
        let weight = weight(format, &seed, shape, 2);
        let found = magnitudes(weight.view(), format).unwrap();
        let mut simulated = weight.to_f32();
        simulate_weight(&mut simulated, shape, format, &found).unwrap();
        let wide = weight.view().cast(DType::F32).unwrap();
        let stored = stored_and_back(&wide, format, &found).to_f32();
        let different =
            stored.iter().zip(&simulated).filter(|(a, b)| (*a - *b).abs() > 1e-5 * a.abs()).count();
        // Codes by division and by multiplication may fall on two sides of a tie, and MXFP4's ties differ by design.
        assert!(different * 50 <= stored.len(), "{format}: {different} of {}", stored.len());
    }
}

#[test]
fn rows_are_simulated_one_by_one_as_all_together() {
    for format in FORMATS.into_iter().filter(|format| !matches!(format, Format::Nf4)) {
        let shape = shape(format, 4, 96);
        let seed: Vec<f32> = (0..83).map(|i| ((i * 31 % 83) as f32 - 41.1) / 13.0).collect();
        let weight = weight(format, &seed, shape, 1);
        let found = magnitudes(weight.view(), format).unwrap();
        let mut whole = weight.to_f32();
        simulate_weight(&mut whole, shape, format, &found).unwrap();
        let mut parts = weight.to_f32();
        let step = if let Format::Fp8Block { block } = format { block as usize } else { 1 };
        let fine = fine_count(format, [step, shape[1]]);
        for (at, rows) in parts.chunks_mut(step * shape[1]).enumerate() {
            let own = if matches!(format, Format::Fp8) {
                &found.fine[..]
            } else {
                &found.fine[(at * fine).min(found.fine.len())..((at + 1) * fine).min(found.fine.len())]
            };
            simulate_rows(rows, shape[1], format, own, found.tensor);
        }
        assert_eq!(whole, parts, "{format}");
    }
}

#[test]
fn activations_of_every_format_are_rounded_alike_whatever_their_batch() {
    let formats = [
        Format::Fp8,
        Format::Fp8Token,
        Format::Int8,
        Format::NVFP4,
        Format::Mxfp4,
        Format::Mxfp6,
        Format::Mxfp8,
        Format::Mxint8,
    ];
    for format in formats {
        assert!(format.is_for(Side::Activation));
        let values: Vec<bf16> = (0..5 * 96).map(|i| bf16::from_f32((i as f32 * 0.77).sin() * 3.0)).collect();
        let mut together = values.clone();
        simulate_activation(&mut together, 96, format, 3.0).unwrap();
        for (row, expected) in values.chunks(96).zip(together.chunks(96)) {
            let mut alone = row.to_vec();
            simulate_activation(&mut alone, 96, format, 3.0).unwrap();
            assert_eq!(alone, expected, "{format}");
        }
        let worst =
            values.iter().zip(&together).map(|(a, b)| (a.to_f32() - b.to_f32()).abs()).fold(0.0, f32::max);
        // Half of the widest step: a sixth of the largest value, an eighth, a sixteenth.
        let bound = 3.0 * if format.bits() == 4 { 0.2 } else { 0.08 };
        assert!(worst > 0.0 && worst <= bound, "{format}: {worst}");
    }
    assert!(simulate_activation(&mut [1f32; 128], 128, Format::Int4 { block: 128 }, 1.0).is_err());
    assert_eq!(e2m1::LARGEST, Format::NVFP4.largest());
}

#[test]
fn an_activation_that_was_always_zero_gets_the_scale_of_the_largest_code() {
    assert_eq!(activation_scale(Format::Fp8, 0.0), 1.0);
    assert_eq!(activation_scale(Format::Int8, 0.0), 1.0);
    assert_eq!(activation_scale(Format::NVFP4, 0.0), 6.0 / 2688.0);
    assert_eq!(activation_scale(Format::NVFP4, 2688.0), 1.0);
    assert_eq!(activation_scale(Format::Int8, 127.0), 1.0);
    assert_eq!(cache_scale(224.0), 0.5);
}
