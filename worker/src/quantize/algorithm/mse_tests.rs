//! Searches against the definition, candidate by candidate, and scale by scale.

use half::bf16;

use super::super::specimen::{FORMATS, linear, numbers, random};
use super::*;
use crate::calibrate::BlockGrams;
use crate::quantize::simulate_weight;

fn options(start: f64, stop: f64, step: f64) -> Search {
    Search { start_multiplier: start, stop_multiplier: stop, step_size: step, ..Search::default() }
}

fn run(linear: &mut LinearWork, multipliers: &[f32], hessians: Option<&BlockHessians>) {
    match searched(linear.numerics.weight) {
        Searched::Nothing => {}
        Searched::Fine => search_fine(linear, multipliers, metric(hessians)),
        scalar => search_scalar(&mut [linear], scalar, multipliers, &|_| hessians.cloned()),
    }
}

/// The run of an element, by the order of the scales.
fn run_of(format: Format, columns: usize, at: usize) -> usize {
    let (row, column) = (at / columns, at % columns);
    match format.grain() {
        Grain::Row => row,
        Grain::Square(side) => row / side * columns.div_ceil(side) + column / side,
        Grain::Block(block) if searched(format) == Searched::Fine => {
            row * columns.div_ceil(block) + column / block
        }
        _ => 0,
    }
}

/// The losses of one candidate for each scale: everything rounded at once, errors in f64.
fn losses(linear: &LinearWork, multiplier: f32, hessians: Option<&BlockHessians>) -> Vec<f64> {
    let format = linear.numerics.weight;
    let shape @ [_, columns] = linear.shape();
    let mut tried = linear.magnitudes.clone();
    let by_row = format.grain() == Grain::Row;
    for amax in &mut tried.fine {
        *amax *= multiplier;
        if by_row {
            *amax = bf16::from_f32(*amax).to_f32();
        }
    }
    if searched(format) == Searched::Tensor {
        tried.tensor *= multiplier;
    }
    let source = linear.weight.to_f32();
    let mut rounded = source.clone();
    simulate_weight(&mut rounded, shape, format, &tried).unwrap();
    let difference = |at: usize| f64::from(source[at] - rounded[at]);
    let mut losses = vec![0f64; if searched(format) == Searched::Fine { tried.fine.len() } else { 1 }];
    for at in 0..source.len() {
        let loss = match hessians {
            None => difference(at) * difference(at),
            Some(hessians) => {
                let (width, column) = (hessians.width, at % columns);
                let begin = at - column % width;
                let hessian = hessians.block(column / width);
                let of = |i: usize, j: usize| f64::from(hessian[i * width + j]);
                let row = |i: usize| (0..width).map(|j| of(i, j) * difference(begin + j)).sum::<f64>();
                (0..width).map(|i| difference(begin + i) * row(i)).sum()
            }
        };
        losses[run_of(format, columns, at)] += loss;
    }
    losses
}

/// A positive definite matrix for each block of 16 columns.
fn hessians(columns: usize) -> BlockHessians {
    let mut grams = BlockGrams::new(columns, 16);
    for token in numbers(40 * columns, 9).chunks(columns) {
        grams.see(&token.iter().map(|value| value + 0.3).collect::<Vec<f32>>());
    }
    BlockHessians::of(&grams).unwrap()
}

#[test]
fn multipliers_are_evenly_spaced_and_include_both_ends() {
    let found = multipliers(&Search::default());
    assert_eq!((found.len(), found[0], found[38]), (39, 0.25, 4.0));
    for (at, found) in found.iter().enumerate() {
        assert!((f64::from(*found) - (0.25 + 3.75 * at as f64 / 38.0)).abs() < 1e-6, "{at}: {found}");
    }
    assert_eq!(multipliers(&options(1.0, 1.5, 0.5)), [1.0, 1.5]);
    assert_eq!(multipliers(&options(1.0, 1.0, 0.5)), [1.0]);
}

#[test]
fn every_scale_has_the_multiplier_of_least_loss() {
    let multipliers = multipliers(&options(0.5, 1.5, 0.125));
    for format in FORMATS {
        for (shape, seed) in [([8, 64], 1), ([70, 128], 2)] {
            for hessians in [None, Some(hessians(shape[1]))] {
                let before = random(format, shape, seed);
                let mut after = before.clone();
                run(&mut after, &multipliers, hessians.as_ref());
                if searched(format) == Searched::Nothing {
                    assert_eq!(after.magnitudes, before.magnitudes);
                    continue;
                }
                let losses: Vec<Vec<f64>> = multipliers
                    .iter()
                    .map(|multiplier| losses(&before, *multiplier, hessians.as_ref()))
                    .collect();
                let (chosen, of) = match searched(format) {
                    Searched::Tensor => (vec![after.magnitudes.tensor], vec![before.magnitudes.tensor]),
                    _ => (after.magnitudes.fine.clone(), before.magnitudes.fine.clone()),
                };
                for (run, (chosen, of)) in chosen.iter().zip(of).enumerate() {
                    let least = losses.iter().map(|losses| losses[run]).fold(f64::INFINITY, f64::min);
                    let keep = |amax: f32| match format.grain() {
                        Grain::Tensor | Grain::Row => bf16::from_f32(amax).to_f32(),
                        _ if searched(format) == Searched::Tensor => bf16::from_f32(amax).to_f32(),
                        _ => amax,
                    };
                    let choice =
                        multipliers.iter().position(|multiplier| keep(of * multiplier) == *chosen).unwrap();
                    let loss = losses[choice][run];
                    assert!(loss <= least * (1.0 + 1e-5), "{format} {shape:?} {run}: {loss}, least {least}");
                }
            }
        }
    }
}

#[test]
fn gate_and_up_that_share_a_quantizer_share_its_search() {
    let multipliers = multipliers(&options(0.5, 1.5, 0.125));
    let (mut gate, mut up) = (random(Format::Fp8, [8, 64], 5), random(Format::Fp8, [8, 64], 6));
    let both: Vec<f32> = [gate.weight.to_f32(), up.weight.to_f32()].concat();
    let mut fused = linear(Format::Fp8, [16, 64], &both);
    run(&mut fused, &multipliers, None);
    search_scalar(&mut [&mut gate, &mut up], Searched::OnlyFine, &multipliers, &|_| None);
    assert_eq!(gate.magnitudes, fused.magnitudes);
    assert_eq!(up.magnitudes, fused.magnitudes);
}

const STATIC: Format = Format::Nvfp4 { block: 16, scales: Nvfp4Scales::Static };

/// The loss of one block under one candidate, and the candidates, by the definition.
fn swept(linear: &LinearWork, block: usize, magnitude: f32, hessians: Option<&BlockHessians>) -> f64 {
    let source = linear.weight.to_f32();
    let source = &source[block * 16..][..16];
    let mut rounded = source.to_vec();
    simulate_rows(&mut rounded, 16, STATIC, &[magnitude], linear.magnitudes.tensor);
    let difference = |i: usize| f64::from(source[i] - rounded[i]);
    let identity = |i: usize, j: usize| f64::from(u8::from(i == j));
    let across = linear.shape()[1] / 16;
    let weight = |i: usize, j: usize| match hessians {
        Some(hessians) => f64::from(hessians.block(block % across)[i * 16 + j]),
        None => identity(i, j),
    };
    (0..16)
        .flat_map(|i| (0..16).map(move |j| (i, j)))
        .map(|(i, j)| difference(i) * weight(i, j) * difference(j))
        .sum()
}

#[test]
fn a_sweep_finds_the_least_loss_of_all_126_scales() {
    for (shape, scale) in [([5, 64], 1.0), ([33, 48], 100.0), ([2, 16], 1e-3)] {
        for hessians in [None, Some(hessians(shape[1]))] {
            let mut before = random(STATIC, shape, 3);
            // As if fused with something larger: small scales are tried as well.
            before.magnitudes.tensor *= scale;
            let mut after = before.clone();
            sweep_linear(&mut after, hessians.as_ref());
            assert_eq!(after.magnitudes.tensor, before.magnitudes.tensor);
            let candidates: Vec<f32> =
                (1..127u8).map(|code| before.magnitudes.tensor * (e4m3(code) / 448.0)).collect();
            for (block, chosen) in after.magnitudes.fine.iter().enumerate() {
                assert!(candidates.contains(chosen));
                let losses = candidates.iter().map(|amax| swept(&before, block, *amax, hessians.as_ref()));
                let least = losses.fold(f64::INFINITY, f64::min);
                let loss = swept(&before, block, *chosen, hessians.as_ref());
                assert!(loss <= least * (1.0 + 1e-5), "{shape:?} {block}: {loss}, least {least}");
            }
        }
    }
}

/// An E4M3 value by its definition.
fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3), f32::from(code & 7));
    if exponent == 0 { mantissa * 2f32.powi(-9) } else { (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7) }
}

#[test]
fn of_equal_losses_the_smallest_scale_wins() {
    // Under 2688 the scales are E4M3's own values: 2 is exact under ½, 1, 2 and 4, with the codes 4, 2, 1 and ½.
    let mut values = vec![0f32; 48];
    values[..16].fill(2.0);
    values[16..32].fill(-2.0);
    let mut linear = linear(STATIC, [3, 16], &values);
    linear.magnitudes.tensor = 2688.0;
    sweep_linear(&mut linear, None);
    assert_eq!(linear.magnitudes.fine, [0.5, 0.5, 2f32.powi(-9)].map(|scale| 2688.0 * (scale / 448.0)));
}
