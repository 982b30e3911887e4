//! Sums over tokens: the definition, and that batches and threads change no bit.

use super::reference::{DTYPES, backends, tensor};
use crate::ops::Backend;
use crate::ops::cpu::mirror;
use crate::tensor::DType;
use crate::tensor::host::HostTensor;

/// Rows `first..last`.
fn rows(x: &HostTensor, first: usize, last: usize) -> HostTensor {
    let width = x.shape()[1];
    let values = x.to_f32()[first * width..last * width].to_vec();
    HostTensor::new::<f32>([last - first, width], values).unwrap().view().cast(x.dtype()).unwrap()
}

/// The whole matrix of sums over these stretches of rows, one call each.
fn gram<B: Backend<Tensor = HostTensor>>(
    backend: &B,
    x: &HostTensor,
    cuts: &[usize],
    together: usize,
) -> Vec<f32> {
    let columns = x.shape()[1];
    let mut sums = vec![0f32; columns * columns];
    for pair in cuts.windows(2) {
        backend.gram(&rows(x, pair[0], pair[1]), together, &mut sums).unwrap();
    }
    mirror(&mut sums, columns);
    sums
}

#[test]
fn products_of_channels_are_those_of_the_definition() {
    for backend in backends(2) {
        for dtype in DTYPES {
            for (tokens, columns) in [(1, 1), (6, 33), (48, 130), (1200, 40)] {
                let x = tensor(dtype, &[tokens, columns], 7);
                let wide = x.to_f32();
                for together in [1, tokens, tokens.div_ceil(2)].into_iter().filter(|n| tokens % n == 0) {
                    let ours = gram(&backend, &x, &[0, tokens], together);
                    for (at, ours) in ours.into_iter().enumerate() {
                        let terms = (0..tokens).map(|token| {
                            let row = &wide[token * columns..][..columns];
                            f64::from(row[at / columns]) * f64::from(row[at % columns])
                        });
                        let (sum, scale) = terms.fold((0f64, 0f64), |(sum, all), x| (sum + x, all + x.abs()));
                        // Chains of f32 additions err by half a unit of the running sum each, to either side: their sum
                        // wanders, and four standard deviations are what it may have gone.
                        let tolerance = 6e-8 * scale * 4.0 * (tokens as f64).sqrt();
                        assert!(
                            (f64::from(ours) - sum).abs() <= tolerance,
                            "{dtype} {tokens} {columns}: {ours} {sum}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn products_of_channels_do_not_depend_on_batches_and_threads() {
    let (samples, length, columns) = (6, 35, 77);
    for (single, triple) in backends(1).zip(backends(3)) {
        for dtype in DTYPES {
            let x = tensor(dtype, &[samples * length, columns], 3);
            let at_once = gram(&single, &x, &[0, 6 * length], length);
            let in_parts = gram(&triple, &x, &[0, length, 3 * length, 6 * length], length);
            assert_eq!(at_once, in_parts, "{dtype}, whole samples of an odd length");
            let routed = gram(&single, &x, &[0, 210], 1);
            let cut_anywhere = gram(&triple, &x, &[0, 1, 18, 35, 210], 1);
            assert_eq!(routed, cut_anywhere, "{dtype}, rows that come one by one");
        }
    }
}

#[test]
fn magnitudes_of_channels_are_those_of_the_definition_in_any_batches() {
    for (single, triple) in backends(1).zip(backends(3)) {
        for dtype in DTYPES {
            let (tokens, columns) = (57, 150);
            let x = tensor(dtype, &[tokens, columns], 5);
            let mut whole = (vec![0f32; columns], vec![0f64; columns]);
            single.channels(&x, &mut whole.0, &mut whole.1).unwrap();
            let mut parts = (vec![0f32; columns], vec![0f64; columns]);
            for pair in [0, 1, 20, 57].windows(2) {
                triple.channels(&rows(&x, pair[0], pair[1]), &mut parts.0, &mut parts.1).unwrap();
            }
            assert_eq!(whole, parts, "{dtype}");
            let wide = x.to_f32();
            for column in 0..columns {
                let own = || (0..tokens).map(|token| wide[token * columns + column].abs());
                assert_eq!(whole.0[column], own().fold(0.0, f32::max));
                assert_eq!(whole.1[column], own().map(f64::from).sum::<f64>());
            }
        }
    }
}

#[test]
fn sums_that_do_not_fit_are_refused() {
    for backend in backends(1) {
        let x = tensor(DType::F32, &[6, 4], 1);
        assert!(backend.gram(&x, 1, &mut [0.0; 15]).is_err(), "4 columns need 16 sums");
        assert!(backend.gram(&x, 4, &mut [0.0; 16]).is_err(), "6 rows are no samples of 4");
        assert!(backend.channels(&x, &mut [0.0; 4], &mut [0.0; 3]).is_err());
    }
}
