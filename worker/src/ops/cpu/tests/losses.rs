//! Likelihoods and divergences against `f64`.

use super::reference::{DTYPES, backends, product, rounded, tensor, unit, wide};
use crate::ops::{Backend, Prediction};
use crate::tensor::DType;
use crate::tensor::host::HostTensor;

/// Log-probabilities of each row, from logits that were rounded to the model's type.
fn log_probabilities(hidden: &HostTensor, head: &HostTensor) -> Vec<Vec<f64>> {
    let k = head.shape()[1];
    let logits = product(&wide(hidden), &wide(head), k);
    let rows = logits.chunks(head.shape()[0]).map(|row| {
        let row: Vec<f64> = row.iter().map(|(logit, _)| rounded(hidden.dtype(), *logit)).collect();
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = largest + row.iter().map(|logit| (logit - largest).exp()).sum::<f64>().ln();
        row.into_iter().map(|logit| logit - log_sum).collect()
    });
    rows.collect()
}

#[test]
fn losses_and_divergences_over_several_blocks_of_the_vocabulary_are_right() {
    let (rows, vocabulary, k) = (5, 9001, 37);
    let targets = [0, 4095, 4096, 9000, 17];
    for dtype in DTYPES {
        let (hidden, head) = (tensor(dtype, &[rows, k], 1), tensor(dtype, &[vocabulary, k], 2));
        let (other_hidden, other_head) = (tensor(dtype, &[rows, k], 3), tensor(dtype, &[vocabulary, k], 4));
        let reference = log_probabilities(&hidden, &head);
        let candidate = log_probabilities(&other_hidden, &other_head);
        for backend in backends(2) {
            let (of, other) = (
                Prediction { hidden: &hidden, head: &head },
                Prediction { hidden: &other_hidden, head: &other_head },
            );
            let losses = backend.losses(of, &targets).unwrap();
            let scores = backend.compare(of, other, &targets).unwrap();
            for (row, target) in targets.iter().enumerate() {
                let (reference, candidate) = (&reference[row], &candidate[row]);
                // A logit within 1 ulp of a tie may be rounded the other way: only the target's has weight.
                let bound = if dtype == DType::F32 { 1e-5 } else { 16.0 * unit(dtype) };
                let target = *target as usize;
                assert!((losses[row] + reference[target]).abs() < bound, "{dtype}: {losses:?}");
                assert_eq!(scores[row].reference_loss, losses[row]);
                assert!((scores[row].loss + candidate[target]).abs() < bound);
                let divergence: f64 = reference.iter().zip(candidate).map(|(p, q)| p.exp() * (p - q)).sum();
                assert!((scores[row].divergence - divergence).abs() < 1e-3 * divergence, "{dtype}");
            }
        }
    }
}

#[test]
fn a_model_does_not_diverge_from_itself() {
    for dtype in DTYPES {
        let (hidden, head) = (tensor(dtype, &[9, 24], 1), tensor(dtype, &[5000, 24], 2));
        let of = Prediction { hidden: &hidden, head: &head };
        for backend in backends(2) {
            for score in backend.compare(of, of, &[3; 9]).unwrap() {
                assert_eq!(score.divergence, 0.0);
                assert_eq!(score.loss, score.reference_loss);
            }
        }
    }
}

#[test]
fn logits_that_are_not_numbers_show_in_the_loss() {
    let mut values = vec![0.5f32; 8 * 4];
    values[5] = f32::NAN;
    let head = HostTensor::new([8, 4], values).unwrap();
    let hidden = tensor(DType::F32, &[1, 4], 1);
    for backend in backends(1) {
        assert!(backend.losses(Prediction { hidden: &hidden, head: &head }, &[0]).unwrap()[0].is_nan());
    }
}
