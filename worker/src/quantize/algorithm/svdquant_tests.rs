//! Branches against their definition, spelt out.

use std::sync::Arc;

use qlaunch_shared::assign::{ActivationNumerics, LinearNumerics, Smoothing};
use qlaunch_shared::numerics::Format;

use super::*;
use crate::calibrate::{Channels, InputStatistics};

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A weight with two strong directions in noise.
fn work([rows, columns]: [usize; 2], seed: u64, dtype: DType) -> LinearWork {
    let mut weight = numbers(rows * columns, seed);
    for strong in 0..2 {
        let (left, right) = (numbers(rows, seed + 10 + strong), numbers(columns, seed + 20 + strong));
        for (at, value) in weight.iter_mut().enumerate() {
            *value = 0.1 * *value + left[at / columns] * right[at % columns];
        }
    }
    let weight = HostTensor::new::<f32>([rows, columns], weight).unwrap();
    let input =
        ActivationNumerics { format: Format::NVFP4, amax: Amax::Calibrated, offset: None, rotated: false };
    let numerics = LinearNumerics {
        module: 0,
        name: format!("linear {seed}"),
        weight: Format::NVFP4,
        input: Some(input),
        smoothing: Smoothing::Stored,
        low_rank: Some(4),
        shared: None,
    };
    LinearWork::new(numerics, weight.view().cast(dtype).unwrap(), None).unwrap()
}

/// `W + b·a`, times what the input is multiplied with.
fn served(linear: &LinearWork) -> Vec<f64> {
    let [rows, columns] = linear.shape();
    let branch = linear.low_rank.as_ref().unwrap();
    let (a, b, rest) = (branch.a.to_f32(), branch.b.to_f32(), linear.weight.to_f32());
    let rank = branch.a.shape()[0];
    let factors = linear.pre_quant_scale.clone().unwrap_or_else(|| vec![1.0; columns]);
    let value = |at: usize| {
        let (row, column) = (at / columns, at % columns);
        let along = |k: usize| f64::from(b[row * rank + k]) * f64::from(a[k * columns + column]);
        (f64::from(rest[at]) + (0..rank).map(along).sum::<f64>()) * f64::from(factors[column])
    };
    (0..rows * columns).map(value).collect()
}

fn relative_error(found: &[f64], expected: &[f32]) -> f64 {
    let squares = found.iter().zip(expected).map(|(a, b)| (a - f64::from(*b)).powi(2)).sum::<f64>();
    squares / energy(expected)
}

#[test]
fn the_branch_takes_the_strong_directions_and_the_rest_is_what_is_left() {
    for (dtype, close) in [(DType::F32, 1e-13), (DType::BF16, 2f64.powi(-16))] {
        for shape in [[24, 48], [48, 32]] {
            let mut linear = work(shape, 1, dtype);
            let (source, before) = (linear.weight.to_f32(), linear.magnitudes.tensor);
            split(&mut linear, 4).unwrap();
            assert!(relative_error(&served(&linear), &source) < close, "{dtype} {shape:?}");
            assert!(energy(&linear.weight.to_f32()) < 0.05 * energy(&source), "the noise is left");
            let largest = linear.weight.to_f32().iter().fold(0f32, |far, value| far.max(value.abs()));
            assert_eq!(linear.magnitudes.tensor, largest);
            assert!(largest < 0.5 * before);
            assert_eq!(linear.low_rank.as_ref().unwrap().a.shape(), [4, shape[1]]);
            assert_eq!(linear.low_rank.as_ref().unwrap().b.shape(), [shape[0], 4]);
        }
    }
}

#[test]
fn a_rank_beyond_the_matrix_leaves_nothing_but_rounding() {
    let mut linear = work([3, 16], 2, DType::F32);
    let source = linear.weight.to_f32();
    split(&mut linear, 5).unwrap();
    assert!(energy(&linear.weight.to_f32()) < 1e-12 * energy(&source));
    assert!(relative_error(&served(&linear), &source) < 1e-13);
}

#[test]
fn linears_of_one_input_get_one_branch_and_still_compute_the_same() {
    for (dtype, close) in [(DType::F32, 1e-12), (DType::BF16, 1e-4)] {
        let mut linears = [work([16, 32], 3, dtype), work([8, 32], 4, dtype)];
        let mut sources = Vec::new();
        for (linear, sign) in linears.iter_mut().zip([1.0, -1.0]) {
            split(linear, 4).unwrap();
            linear.pre_quant_scale = Some((0..32).map(|at| (sign * at as f32 / 8.0).exp2()).collect());
            sources.push(served(linear).iter().map(|value| *value as f32).collect::<Vec<f32>>());
        }
        let shared: Vec<f32> = (0..32).map(|at| 0.5 + at as f32 / 16.0).collect();
        share_branch(&mut linears, &[0, 1], &shared).unwrap();
        for (linear, source) in linears.iter().zip(&sources) {
            let weighted: Vec<f64> = served(linear);
            assert!(relative_error(&weighted, source) < close, "{dtype}");
            assert_eq!(linear.pre_quant_scale.as_ref(), Some(&shared));
            let largest = linear.weight.to_f32().iter().fold(0f32, |far, value| far.max(value.abs()));
            assert_eq!(linear.magnitudes.tensor, largest);
        }
        let [first, second] = linears.map(|linear| linear.low_rank.unwrap().a.to_f32());
        assert_eq!(first, second);
    }
}

#[test]
fn the_input_is_measured_under_the_factors_that_are_stored() {
    let mut linear = work([2, 16], 5, DType::BF16);
    linear.pre_quant_scale = Some((0..16).map(|at| if at == 3 { 0.5 } else { 1.0 }).collect());
    let amax = (0..16).map(|at| if at == 3 { 9.0 } else { 2.0 }).collect();
    let channels = Some(Arc::new(Channels { amax, mean: vec![0.0; 16] }));
    let mut statistics = Statistics::default();
    statistics.inputs.insert(0, InputStatistics { channels, ..InputStatistics::default() });
    see_input(&mut linear, &statistics);
    assert_eq!(linear.input_amax, Some(4.5));
}
