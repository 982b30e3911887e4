//! Norm, rotary embedding, activation, residual sum and magnitude, with torch's rounding points.

use proptest::prelude::*;

use super::reference::{DTYPES, backends, noise, rounded, tensor, unit, wide};
use crate::ops::{Activation, Backend, RotaryTables};
use crate::tensor::DType;
use crate::tensor::host::HostTensor;

/// Fails unless `found` is `expected` up to `steps` roundings of `dtype`: an `f32` inside an operation that falls on the
/// other side of a tie moves a result by one.
fn assert_close(dtype: DType, found: &HostTensor, expected: &[f64], steps: f64) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in wide(found).into_iter().zip(expected).enumerate() {
        let bound = 2.0 * steps * unit(dtype) * expected.abs() + 1e-7;
        assert!((found - expected).abs() <= bound, "{dtype} at {index}: {found} is not {expected}");
    }
}

/// Share of elements that are exactly what the rounding points say.
fn exact_share(found: &HostTensor, expected: &[f64]) -> f64 {
    let equal = wide(found).into_iter().zip(expected).filter(|(found, expected)| found == *expected).count();
    equal as f64 / expected.len() as f64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn norms_round_where_torch_rounds(rows in 1usize..9, width in 1usize..200, seed in any::<u32>()) {
        for (backend, dtype) in backends(1).flat_map(|backend| DTYPES.map(|dtype| (backend.numeric_path(), dtype))) {
            let backend = crate::ops::CpuBackend::new(1, backend).unwrap();
            let (x, weight) = (tensor(dtype, &[rows, width], seed.into()), tensor(dtype, &[width], 3));
            let eps = 1e-5f32;
            let gains = wide(&weight);
            let expected: Vec<f64> = wide(&x)
                .chunks(width)
                .flat_map(|x| {
                    let mean = x.iter().map(|x| x * x).sum::<f64>() / width as f64;
                    let factor = 1.0 / (mean + f64::from(eps)).sqrt();
                    let normal = x.iter().map(|x| rounded(dtype, x * factor)).collect::<Vec<_>>();
                    normal.into_iter().zip(&gains).map(|(x, gain)| rounded(dtype, x * gain)).collect::<Vec<_>>()
                })
                .collect();
            let found = backend.rms_norm(&x, &weight, eps).unwrap();
            // The rounded normal value may differ by one step, and its product by another; an `f32` sum adds a few.
            assert_close(dtype, &found, &expected, if dtype == DType::F32 { 8.0 } else { 2.0 });
        }
    }

    #[test]
    fn head_norms_are_norms_of_each_head(tokens in 1usize..5, heads in 1usize..5, seed in any::<u32>()) {
        let dim = 24;
        for backend in backends(1) {
            let (x, weight) = (tensor(DType::BF16, &[tokens, heads * dim], seed.into()), tensor(DType::BF16, &[dim], 3));
            let by_head = backend.rms_norm(&x.clone().reshape([tokens * heads, dim]).unwrap(), &weight, 1e-6).unwrap();
            let in_place = backend.rms_norm(&x, &weight, 1e-6).unwrap();
            prop_assert_eq!(in_place.shape(), x.shape());
            prop_assert_eq!(in_place.to_f32(), by_head.to_f32());
        }
    }

    #[test]
    fn heads_turn_as_in_transformers(tokens in 1usize..7, heads in 1usize..4, half in 1usize..20, seed in any::<u32>()) {
        let (dim, known) = (2 * half + 3, 11);
        for dtype in DTYPES {
            let x = tensor(dtype, &[tokens, heads * dim], seed.into());
            let tables = RotaryTables { cosines: tensor(dtype, &[known, half], 5), sines: tensor(dtype, &[known, half], 6) };
            let positions: Vec<u32> = (0..tokens as u32).map(|token| (token * 3 + seed % 7) % known as u32).collect();
            let (cosines, sines, source) = (wide(&tables.cosines), wide(&tables.sines), wide(&x));
            let mut expected = source.clone();
            for (index, expected) in expected.iter_mut().enumerate() {
                let (place, position) = (index % dim, positions[index / (heads * dim)] as usize);
                if place >= 2 * half {
                    continue;
                }
                let (cosine, sine) = (cosines[position * half + place % half], sines[position * half + place % half]);
                let partner = if place < half { -source[index + half] } else { source[index - half] };
                *expected = rounded(dtype, rounded(dtype, source[index] * cosine) + rounded(dtype, partner * sine));
            }
            for backend in backends(2) {
                let mut turned = x.clone();
                backend.rotate(&mut turned, dim, &tables, &positions).unwrap();
                prop_assert_eq!(wide(&turned), expected.clone());
            }
        }
    }

    #[test]
    fn the_residual_sum_is_rounded_once(length in 1usize..300, seed in any::<u32>()) {
        for dtype in DTYPES {
            let (left, right) = (tensor(dtype, &[length], seed.into()), tensor(dtype, &[length], 9));
            let expected: Vec<f64> =
                wide(&left).iter().zip(wide(&right)).map(|(left, right)| rounded(dtype, left + right)).collect();
            for backend in backends(1) {
                let mut sum = left.clone();
                backend.add(&mut sum, &right).unwrap();
                prop_assert_eq!(wide(&sum), expected.clone());
            }
        }
    }
}

#[test]
fn activations_round_before_and_after_the_product() {
    let silu = |x: f64| x / (1.0 + (-x).exp());
    // `(1 + tanh z) / 2` is the logistic function of `2z`, which has no cancellation.
    let root = (2.0 / std::f64::consts::PI).sqrt();
    let tanh = |x: f64| x / (1.0 + (-2.0 * root * (x + 0.044715 * x.powi(3))).exp());
    let gelu = |x: f64| 0.5 * x * (1.0 + f64::from(super::super::exponential::erf((x / 2f64.sqrt()) as f32)));
    let references: [(Activation, &dyn Fn(f64) -> f64); 3] =
        [(Activation::Silu, &silu), (Activation::GeluTanh, &tanh), (Activation::Gelu, &gelu)];
    for (activation, reference) in references {
        for dtype in DTYPES {
            let gate =
                HostTensor::new([1000], noise(1, 1000).into_iter().map(|x| 8.0 * x).collect::<Vec<f32>>());
            let gate = gate.unwrap().view().cast(dtype).unwrap();
            let up = tensor(dtype, &[1000], 2);
            let pairs = wide(&gate).into_iter().zip(wide(&up));
            let expected: Vec<f64> =
                pairs.map(|(gate, up)| rounded(dtype, rounded(dtype, reference(gate)) * up)).collect();
            for backend in backends(2) {
                let found = backend.activate(&gate, &up, activation).unwrap();
                // `1 + erf` cancels for negative gates: the error is one of `f32` relative to the gate.
                let error =
                    wide(&found).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(error < 16.0 * unit(dtype), "{activation:?} {dtype}: {error}");
                assert!(
                    dtype == DType::F32 || exact_share(&found, &expected) > 0.99,
                    "{activation:?} {dtype}"
                );
            }
        }
    }
}

#[test]
fn the_magnitude_counts_what_is_not_finite() {
    for length in [1usize, 31, 32, 33, 70_000] {
        for dtype in DTYPES {
            let mut values = noise(4, length);
            values[length / 2] = -3.5;
            let finite = HostTensor::new([length], values.clone()).unwrap().view().cast(dtype).unwrap();
            values[0] = f32::NAN;
            values[length - 1] = f32::NEG_INFINITY;
            let broken = HostTensor::new([length], values).unwrap().view().cast(dtype).unwrap();
            for backend in backends(2) {
                assert_eq!(backend.magnitude(&finite).unwrap().finite().unwrap(), 3.5);
                let found = backend.magnitude(&broken).unwrap();
                assert_eq!((found.nans, found.infinities), (u64::from(length > 1), 1));
                assert_eq!(found.amax, if length > 2 { 3.5 } else { 0.0 });
                assert!(found.finite().is_err());
            }
        }
    }
}
