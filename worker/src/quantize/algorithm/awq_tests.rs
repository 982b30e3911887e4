//! AWQ's searches against the definition: one forward for every choice, token by token, in f64.

use std::collections::BTreeMap;
use std::sync::Arc;

use qlaunch_shared::assign::algorithm::{AwqClip, AwqLite};
use qlaunch_shared::assign::{LinearNumerics, Smoothing};
use qlaunch_shared::numerics::{Format, Nvfp4Scales};

use super::awq_clip::awq_clip;
use super::awq_lite::awq_lite;
use crate::calibrate::{BlockGrams, Channels, Gram, InputStatistics, Statistics};
use crate::ops::Magnitude;
use crate::quantize::{LinearWork, Magnitudes, magnitudes, simulate_weight};
use crate::tensor::DType;
use crate::tensor::dtype::round_as;
use crate::tensor::host::HostTensor;

const TOKENS: usize = 40;

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    // Sums of three are nearer to a bell than one.
    (0..count).map(|_| next() + next() + next()).collect()
}

/// A linear, and an input with some strong channels.
fn case(format: Format, [rows, columns]: [usize; 2], seed: u64) -> (LinearWork, Vec<f32>) {
    let weight = HostTensor::new::<f32>([rows, columns], numbers(rows * columns, seed)).unwrap();
    let numerics = LinearNumerics {
        module: 0,
        name: format!("linear {seed}"),
        weight: format,
        input: None,
        smoothing: Smoothing::Stored,
        low_rank: None,
        shared: None,
    };
    let mut x = numbers(TOKENS * columns, seed + 1);
    for (at, x) in x.iter_mut().enumerate() {
        *x *= 1.0 + 20.0 / (1.0 + (at % columns) as f32);
    }
    (LinearWork::new(numerics, weight.view().cast(DType::BF16).unwrap(), None).unwrap(), x)
}

fn statistics(x: &[f32], columns: usize, block: usize) -> Statistics {
    let mut sums = vec![0f32; columns * columns];
    let (mut amax, mut mean) = (vec![0f32; columns], vec![0f32; columns]);
    let mut blocks = BlockGrams::new(columns, block);
    for token in x.chunks(columns) {
        for (left, sums) in token.iter().zip(sums.chunks_mut(columns)) {
            sums.iter_mut().zip(token).for_each(|(sum, right)| *sum += left * right);
        }
        amax.iter_mut().zip(token).for_each(|(amax, x)| *amax = amax.max(x.abs()));
        mean.iter_mut().zip(token).for_each(|(mean, x)| *mean += x.abs() / TOKENS as f32);
        blocks.see(token);
    }
    let seen = InputStatistics {
        magnitude: Magnitude { amax: amax.iter().copied().fold(0.0, f32::max), ..Magnitude::default() },
        tokens: TOKENS as u64,
        channels: Some(Arc::new(Channels { amax, mean })),
        gram: Some(Arc::new(Gram { columns, sums, tokens: TOKENS as u64 })),
        block_grams: Some(Arc::new(blocks)),
        ..InputStatistics::default()
    };
    Statistics { inputs: BTreeMap::from([(0, seen)]), ..Statistics::default() }
}

fn rounded(values: impl Iterator<Item = f32>) -> Vec<f32> {
    let mut values: Vec<f32> = values.collect();
    round_as(DType::BF16, &mut values);
    values
}

/// `Σ (ŷ − y)²` over tokens and the outputs `rows`, for inputs that are multiplied with `factors` first.
fn loss(x: &[f32], weights: (&[f32], &[f32]), factors: &[f32], columns: &[usize]) -> f64 {
    let width = factors.len();
    let pairs = weights.0.chunks(width).zip(weights.1.chunks(width));
    let row = |(rounded, weight): (&[f32], &[f32])| {
        let token = |x: &[f32]| {
            let error = columns.iter().map(|&column| {
                let served = f64::from(rounded[column]) * f64::from(factors[column]);
                f64::from(x[column]) * (served - f64::from(weight[column]))
            });
            error.sum::<f64>().powi(2)
        };
        x.chunks(width).map(token).sum::<f64>()
    };
    pairs.map(row).sum()
}

fn simulated(weight: &[f32], shape: [usize; 2], format: Format, magnitudes: &Magnitudes) -> Vec<f32> {
    let mut values = weight.to_vec();
    simulate_weight(&mut values, shape, format, magnitudes).unwrap();
    rounded(values.into_iter())
}

/// Losses of all exponents, and the factors on inputs that go with them.
fn literal_lite(linear: &LinearWork, x: &[f32], block: usize) -> Vec<(f64, Vec<f32>)> {
    let (shape @ [rows, columns], weight) = (linear.shape(), linear.weight.to_f32());
    let mut importance = vec![0f64; columns];
    for (at, value) in weight.iter().enumerate() {
        let begin = at / block * block;
        let largest = weight[begin..begin + block].iter().fold(0f32, |far, value| far.max(value.abs()));
        importance[at % columns] += f64::from(value.abs() / largest);
    }
    let importance: Vec<f32> = importance.iter().map(|sum| (sum / rows as f64) as f32).collect();
    let mut activity = vec![0f32; columns];
    x.iter().enumerate().for_each(|(at, x)| activity[at % columns] += x.abs() / TOKENS as f32);
    (0..=10)
        .map(|tenth| {
            let alpha = (f64::from(tenth) * 0.1) as f32;
            let raw = activity.iter().zip(&importance).map(|(a, w)| a.powf(alpha) / w.powf(1.0 - alpha));
            let raw: Vec<f32> = raw.collect();
            let far = raw.iter().fold((f32::INFINITY, 0f32), |(low, high), s| (low.min(*s), high.max(*s)));
            let scale: Vec<f32> = raw.iter().map(|s| s / (far.0 * far.1).sqrt()).collect();
            let down: Vec<f32> = scale.iter().map(|scale| 1.0 / scale).collect();
            let scaled: Vec<f32> = weight.iter().enumerate().map(|(at, w)| w * scale[at % columns]).collect();
            let view = HostTensor::new::<f32>(shape, scaled.clone()).unwrap();
            let found = magnitudes(view.view(), linear.numerics.weight).unwrap();
            let mut served = scaled;
            simulate_weight(&mut served, shape, linear.numerics.weight, &found).unwrap();
            let all: Vec<usize> = (0..columns).collect();
            (loss(x, (&served, &weight), &down, &all), down)
        })
        .collect()
}

#[test]
fn awq_lite_chooses_the_exponent_with_the_least_output_error() {
    for (format, block) in [(Format::Int4 { block: 32 }, 32), (Format::NVFP4, 16), (Format::Int8, 96)] {
        for seed in 0..6 {
            // Rows of one band, and of several.
            let shape = [if seed < 3 { 34 } else { 300 }, 96];
            let (mut linear, x) = case(format, shape, seed);
            let losses = literal_lite(&linear, &x, block);
            let before = linear.weight.to_f32();
            awq_lite(std::slice::from_mut(&mut linear), &AwqLite::default(), &statistics(&x, 96, block))
                .unwrap();
            let alpha: f32 = linear.remarks[0].value.parse().unwrap();
            let (chosen, factors) = &losses[(alpha * 10.0).round() as usize];
            let least = losses.iter().map(|(loss, _)| *loss).fold(f64::INFINITY, f64::min);
            assert!(losses.iter().any(|(loss, _)| *loss > 1.05 * least), "the choice matters");
            // The sums are f32 there, of bf16 off the diagonal, and f64 here.
            assert!(*chosen <= least * (1.0 + 1e-4), "{format} {seed}: {chosen} against {least}");
            let stored = rounded(factors.iter().copied());
            let ours = linear.pre_quant_scale.clone().unwrap();
            assert!(ours.iter().zip(&stored).all(|(a, b)| (a / b - 1.0).abs() < 0.01), "{ours:?} {stored:?}");
            let expected = rounded(before.iter().enumerate().map(|(at, w)| w * (1.0 / factors[at % 96])));
            let close =
                linear.weight.to_f32().iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 0.01 * b.abs());
            assert!(close, "the weight does the opposite");
        }
    }
}

#[test]
fn awq_clip_chooses_the_ratio_with_the_least_output_error() {
    for seed in 0..4 {
        let (mut linear, x) = case(Format::NVFP4, [34, 96], seed);
        linear.pre_quant_scale = (seed % 2 == 1).then(|| (0..96).map(|at| 1.0 + (at % 3) as f32).collect());
        let (shape, weight) = (linear.shape(), linear.weight.to_f32());
        let factors = linear.pre_quant_scale.clone().unwrap_or_else(|| vec![1.0; 96]);
        let all: Vec<usize> = (0..96).collect();
        let losses: Vec<(f64, f32)> = (0..=10)
            .map(|place| {
                let tensor = rounded([linear.magnitudes.tensor * (0.5 + 0.05 * place as f32)].into_iter())[0];
                let served = simulated(&weight, shape, Format::NVFP4, &Magnitudes { fine: vec![], tensor });
                // Both sides see the smoothed input.
                let smoothed: Vec<f32> = x.iter().enumerate().map(|(at, x)| x * factors[at % 96]).collect();
                (loss(&smoothed, (&served, &weight), &[1.0; 96], &all), tensor)
            })
            .collect();
        awq_clip(std::slice::from_mut(&mut linear), &AwqClip::default(), &statistics(&x, 96, 16)).unwrap();
        let least = losses.iter().map(|(loss, _)| *loss).fold(f64::INFINITY, f64::min);
        let chosen = losses.iter().find(|(_, tensor)| *tensor == linear.magnitudes.tensor).unwrap();
        assert!(chosen.0 <= least * (1.0 + 1e-4), "{seed}: {chosen:?} against {least}");
    }
}

#[test]
fn awq_clip_chooses_a_ratio_for_every_block() {
    let scales = Nvfp4Scales::Static;
    for (format, block) in [(Format::Int4 { block: 32 }, 32), (Format::Nvfp4 { block: 16, scales }, 16)] {
        let (mut linear, x) = case(format, [6, 96], 9);
        let (shape, weight, before) = (linear.shape(), linear.weight.to_f32(), linear.magnitudes.clone());
        awq_clip(std::slice::from_mut(&mut linear), &AwqClip::default(), &statistics(&x, 96, block)).unwrap();
        let across = 96 / block;
        let mut clipped = 0;
        for place in 0..before.fine.len() {
            let (row, first) = (place / across, place % across * block);
            let columns: Vec<usize> = (first..first + block).collect();
            let of = |ratio: f32| {
                let mut tried = before.clone();
                tried.fine[place] *= ratio;
                let served = simulated(&weight, shape, format, &tried);
                let row = row * 96..(row + 1) * 96;
                loss(&x, (&served[row.clone()], &weight[row]), &[1.0; 96], &columns)
            };
            let ratio = linear.magnitudes.fine[place] / before.fine[place];
            let least =
                (0..=10).map(|step| of(((50 + 5 * step) as f32) / 100.0)).fold(f64::INFINITY, f64::min);
            assert!(of(ratio) <= least * (1.0 + 1e-3), "{format} block {place}: {ratio}");
            clipped += usize::from(ratio < 0.99);
        }
        assert!(clipped * 4 > before.fine.len(), "some blocks are better clipped: {clipped}");
    }
}
