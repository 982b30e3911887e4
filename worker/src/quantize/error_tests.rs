//! Errors against their definition, spelt out in f64.

use qlaunch_shared::assign::{LinearNumerics, Smoothing};
use qlaunch_shared::checkpoint::DType;

use super::*;

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn work(format: Format, [rows, columns]: [usize; 2]) -> LinearWork {
    let weight = HostTensor::new::<f32>([rows, columns], numbers(rows * columns, 7)).unwrap();
    let numerics = LinearNumerics {
        module: 0,
        name: "linear".to_owned(),
        weight: format,
        input: None,
        smoothing: Smoothing::None,
        low_rank: None,
        shared: None,
    };
    LinearWork::new(numerics, weight.view().cast(DType::BF16).unwrap(), None).unwrap()
}

/// The definition, over all rows: decoded, times factors, plus branch, over row factors.
fn defined(linear: &LinearWork, origin: &Origin<'_>) -> (f64, f64) {
    let stored = linear.store(None).unwrap();
    let [rows, columns] = linear.shape();
    let whole = decode_band(linear, &stored, (0, rows)).unwrap().to_f32();
    let source = origin.weight.to_f32();
    let (mut error, mut norm, mut output, mut of) = (0.0, 0.0, 0.0, 0.0);
    for row in 0..rows {
        let difference: Vec<f64> = (0..columns)
            .map(|column| {
                let mut served = f64::from(whole[row * columns + column]);
                if let Some(branch) = &linear.low_rank {
                    let (a, b) = (branch.a.to_f32(), branch.b.to_f32());
                    let rank = branch.a.shape()[0];
                    served += (0..rank)
                        .map(|r| f64::from(b[row * rank + r]) * f64::from(a[r * columns + column]))
                        .sum::<f64>();
                }
                served *= linear.pre_quant_scale.as_ref().map_or(1.0, |factors| f64::from(factors[column]));
                served /= origin.row_factors.map_or(1.0, |factors| f64::from(factors[row]));
                served - f64::from(source[row * columns + column])
            })
            .collect();
        let own: Vec<f64> = source[row * columns..][..columns].iter().map(|v| f64::from(*v)).collect();
        error += difference.iter().map(|v| v * v).sum::<f64>();
        norm += own.iter().map(|v| v * v).sum::<f64>();
        if let Some(gram) = origin.gram {
            let form = |v: &[f64]| -> f64 {
                (0..columns)
                    .flat_map(|i| (0..columns).map(move |j| (i, j)))
                    .map(|(i, j)| v[i] * f64::from(gram[i * columns + j]) * v[j])
                    .sum()
            };
            output += form(&difference);
            of += form(&own);
        }
    }
    (error / norm, output / of)
}

fn close(found: f64, expected: f64) -> bool {
    // f32 products within a row.
    (found / expected - 1.0).abs() < 1e-4
}

#[test]
fn errors_are_those_of_the_definition_with_factors_branch_and_gram() {
    let mut linear = work(Format::NVFP4, [24, 64]);
    let original = linear.weight.clone();
    let factors: Vec<f32> = numbers(64, 3).iter().map(|v| 1.5 + v).collect();
    let rows: Vec<f32> = numbers(24, 4).iter().map(|v| 2.0 + v).collect();
    let changed: Vec<f32> = original
        .to_f32()
        .iter()
        .enumerate()
        .map(|(at, value)| value / factors[at % 64] * rows[at / 64])
        .collect();
    linear.weight = HostTensor::new::<f32>([24, 64], changed).unwrap().view().cast(DType::BF16).unwrap();
    linear.measure_again().unwrap();
    linear.pre_quant_scale = Some(factors);
    let small = |count, seed| numbers(count, seed).iter().map(|v| v / 50.0).collect();
    linear.low_rank = Some(LowRank {
        a: HostTensor::new::<f32>([3, 64], small(192, 5)).unwrap(),
        b: HostTensor::new::<f32>([24, 3], small(72, 6)).unwrap(),
    });
    let x = numbers(40 * 64, 9);
    let entry = |i: usize, j: usize| (0..40).map(|t| x[t * 64 + i] * x[t * 64 + j]).sum::<f32>();
    let gram: Vec<f32> = (0..64 * 64).map(|at| entry(at / 64, at % 64)).collect();
    let origin = Origin { weight: original.view(), row_factors: Some(&rows), gram: Some(&gram) };
    let found = measure_errors(&linear, &linear.store(None).unwrap(), &origin).unwrap();
    let (weight, output) = defined(&linear, &origin);
    assert!(close(found.weight, weight), "{found:?}, not {weight}");
    assert!(close(found.output.unwrap(), output), "{found:?}, not {output}");
    assert_eq!((found.rows_measured, found.rows), (24, 24));
}

#[test]
fn bands_decode_to_the_rows_of_the_whole_in_every_format() {
    for format in [
        Format::Fp8,
        Format::Fp8Channel,
        Format::Fp8Block { block: 128 },
        Format::Int8Channel,
        Format::Int4 { block: 32 },
        Format::NVFP4,
        Format::Mxfp4,
        Format::Mxfp8,
    ] {
        let linear = work(format, [300, 128]);
        let stored = linear.store(None).unwrap();
        let whole = decode_band(&linear, &stored, (0, 300)).unwrap().to_f32();
        for (begin, end) in [(0, 128), (128, 256), (256, 300)] {
            let band = decode_band(&linear, &stored, (begin, end)).unwrap().to_f32();
            assert_eq!(band, whole[begin * 128..end * 128], "{format} {begin}..{end}");
        }
    }
}

#[test]
fn large_weights_are_measured_in_bands_over_their_whole_height() {
    assert_eq!(bands(Format::NVFP4, [768, 256]), [(0, 768)]);
    assert_eq!(bands(Format::Nf4, [100_000, 4096]), [(0, 100_000)]);
    let bands = bands(Format::NVFP4, [100_000, 4096]);
    assert_eq!(bands, [(0, 128), (99_968, 100_000)]);
    let wide = super::bands(Format::NVFP4, [1000, 100_000]);
    assert_eq!(wide, [(512, 640)]);
}

#[test]
fn threads_change_no_bit() {
    let linear = work(Format::NVFP4, [200, 96]);
    let stored = linear.store(None).unwrap();
    let origin = Origin { weight: linear.weight.view(), row_factors: None, gram: None };
    let measured = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| measure_errors(&linear, &stored, &origin).unwrap())
    };
    assert_eq!(measured(1).weight.to_bits(), measured(5).weight.to_bits());
    assert!(measured(1).weight > 1e-4, "NVFP4 is not exact");
}
