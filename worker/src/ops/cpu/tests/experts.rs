//! Routing and weighted sums of experts' outputs, against scalar references, and their independence of company.

use proptest::prelude::*;
use qlaunch_shared::model::Weighting;

use super::reference::{DTYPES, backends, noise, rounded, tensor, wide};
use crate::ops::{Backend, Routes, Routing, Share};
use crate::tensor::DType;
use crate::tensor::host::HostTensor;

const WEIGHTINGS: [Weighting; 4] = [
    Weighting { normalised: false, rounded: false },
    Weighting { normalised: true, rounded: false },
    Weighting { normalised: false, rounded: true },
    Weighting { normalised: true, rounded: true },
];

/// Experts and weights of one token by the textbook: sort all probabilities, keep the first ones.
fn chosen(dtype: DType, scores: &[f64], routing: Routing) -> Vec<(u32, f64)> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
    let probabilities = scores.iter().map(|score| (score - largest).exp() / sum);
    let mut all: Vec<(u32, f64)> = (0u32..).zip(probabilities).collect();
    // A stable sort leaves the lower expert in front.
    all.sort_by(|left, right| right.1.total_cmp(&left.1));
    all.truncate(routing.per_token);
    let total: f64 = all.iter().map(|(_, probability)| probability).sum();
    for (_, weight) in &mut all {
        *weight = if routing.weighting.normalised { *weight / total } else { *weight };
        *weight = if routing.weighting.rounded { rounded(dtype, *weight) } else { *weight };
    }
    all
}

/// Tokens and weights of every third row or so, ascending.
fn share(rows: usize, seed: u64) -> Share {
    let tokens: Vec<u32> =
        (0..rows as u32).filter(|row| (u64::from(*row) * 7 + seed).is_multiple_of(3)).collect();
    let weights = noise(seed + 9, tokens.len()).into_iter().map(f32::abs).collect();
    Share { tokens, weights }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_most_probable_experts_are_chosen(
        tokens in 1usize..40, experts in 1usize..70, some in 0usize..70, seed in any::<u32>(),
    ) {
        let per_token = 1 + some % experts;
        for (backend, dtype) in backends(1).flat_map(|backend| DTYPES.map(|dtype| (backend.numeric_path(), dtype))) {
            let backend = crate::ops::CpuBackend::new(1, backend).unwrap();
            // Few distinct scores in bf16, so that there are ties.
            let scores = tensor(dtype, &[tokens, experts], seed.into());
            for weighting in WEIGHTINGS {
                let routing = Routing { per_token, weighting };
                let routes = backend.route(&scores, routing).unwrap();
                prop_assert_eq!(routes.experts.len(), tokens * per_token);
                let found = routes.experts.chunks(per_token).zip(routes.weights.chunks(per_token));
                for (scores, (experts, weights)) in wide(&scores).chunks(scores.shape()[1]).zip(found) {
                    for ((&expert, &weight), (right, exact)) in experts.iter().zip(weights).zip(chosen(dtype, scores, routing)) {
                        // Probabilities that differ in f64 may be equal in f32.
                        let equal = (scores[expert as usize] - scores[right as usize]).abs() < 1e-6;
                        prop_assert!(expert == right || equal, "{}: expert {} for {}", dtype, expert, right);
                        let slack = if weighting.rounded { super::reference::unit(dtype) } else { 0.0 };
                        prop_assert!((f64::from(weight) - exact).abs() <= (2e-6 + 2.0 * slack) * exact, "{} {}", weight, exact);
                    }
                }
            }
        }
    }

    #[test]
    fn weighted_rows_round_where_torch_rounds(rows in 1usize..60, width in 1usize..80, seed in any::<u32>()) {
        for (backend, dtype) in backends(1).flat_map(|backend| DTYPES.map(|dtype| (backend.numeric_path(), dtype))) {
            let backend = crate::ops::CpuBackend::new(1, backend).unwrap();
            let share = share(rows, seed.into());
            let added = tensor(dtype, &[share.tokens.len(), width], seed.into());
            let mut sum = tensor(dtype, &[rows, width], u64::from(seed) + 1);
            let mut expected = wide(&sum);
            for (row, (&token, &weight)) in wide(&added).chunks(width).zip(share.tokens.iter().zip(&share.weights)) {
                for (sum, element) in expected[token as usize * width..][..width].iter_mut().zip(row) {
                    // Products and sums in f32, as torch has them, before they are rounded.
                    let weighted = rounded(dtype, f64::from(*element as f32 * weight));
                    *sum = rounded(dtype, f64::from(*sum as f32 + weighted as f32));
                }
            }
            backend.scatter_add(&mut sum, &added, &share).unwrap();
            prop_assert_eq!(wide(&sum), expected);
        }
    }
}

#[test]
fn between_equal_scores_the_lower_expert_goes_first() {
    let scores = HostTensor::new([1, 5], vec![0.5f32, 1.0, 0.5, 1.0, 1.0]).unwrap();
    let routing = Routing { per_token: 4, weighting: WEIGHTINGS[0] };
    for backend in backends(1) {
        assert_eq!(backend.route(&scores, routing).unwrap().experts, [1, 3, 4, 0]);
    }
}

#[test]
fn scores_that_are_no_numbers_still_choose_different_experts() {
    let scores = HostTensor::new(
        [2, 4],
        vec![f32::NAN, 1.0, f32::NAN, 2.0, f32::NEG_INFINITY, 0.0, f32::INFINITY, 1.0],
    );
    for backend in backends(1) {
        let routing = Routing { per_token: 3, weighting: WEIGHTINGS[1] };
        let routes = backend.route(scores.as_ref().unwrap(), routing).unwrap();
        for experts in routes.experts.chunks(3) {
            let mut sorted = experts.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), 3, "{experts:?}");
        }
    }
}

#[test]
fn shares_list_each_experts_tokens_in_order() {
    let routes =
        Routes { per_token: 2, experts: vec![2, 0, 0, 1, 2, 1], weights: vec![0.6, 0.4, 0.9, 0.1, 0.5, 0.5] };
    let share =
        |tokens: &[u32], weights: &[f32]| Share { tokens: tokens.to_vec(), weights: weights.to_vec() };
    let none = Share::default();
    let expected =
        [share(&[0, 1], &[0.4, 0.9]), share(&[1, 2], &[0.1, 0.5]), share(&[0, 2], &[0.6, 0.5]), none];
    assert_eq!(routes.shares(4), expected);
}

#[test]
fn routes_and_sums_are_the_same_on_any_threads_and_alone() {
    // More rows than a thread takes at a time.
    let (rows, experts, width) = (3001, 24, 40);
    for (single, triple) in backends(1).zip(backends(3)) {
        for dtype in DTYPES {
            let scores = tensor(dtype, &[rows, experts], 1);
            let routing = Routing { per_token: 3, weighting: WEIGHTINGS[3] };
            let whole = single.route(&scores, routing).unwrap();
            assert_eq!(whole, triple.route(&scores, routing).unwrap(), "{dtype}");
            let alone = triple.route(&triple.gather(&scores, &[1777]).unwrap(), routing).unwrap();
            assert_eq!(alone.experts, whole.experts[3 * 1777..][..3]);
            assert_eq!(alone.weights, whole.weights[3 * 1777..][..3]);

            let (start, share) = (tensor(dtype, &[rows, width], 2), share(rows, 1));
            let added = tensor(dtype, &[share.tokens.len(), width], 3);
            let (mut one, mut three) = (start.clone(), start.clone());
            single.scatter_add(&mut one, &added, &share).unwrap();
            triple.scatter_add(&mut three, &added, &share).unwrap();
            assert_eq!(one, three, "{dtype}");
            let (nth, token) = (500, share.tokens[500]);
            let mut alone = single.gather(&start, &[token]).unwrap();
            let only = Share { tokens: vec![0], weights: vec![share.weights[nth]] };
            single.scatter_add(&mut alone, &single.gather(&added, &[nth as u32]).unwrap(), &only).unwrap();
            assert_eq!(alone, single.gather(&one, &[token]).unwrap());
        }
    }
}

#[test]
fn impossible_routes_and_sums_are_refused() {
    let backend = backends(1).next().unwrap();
    let scores = tensor(DType::F32, &[2, 4], 1);
    for per_token in [0, 5] {
        let error = backend.route(&scores, Routing { per_token, weighting: WEIGHTINGS[0] }).unwrap_err();
        assert!(error.message.contains("of 4 experts"), "{error}");
    }
    let rows = tensor(DType::F32, &[2, 4], 2);
    for tokens in [vec![1, 1], vec![1, 0], vec![0, 3], vec![0]] {
        let share = Share { weights: vec![1.0; tokens.len()], tokens };
        let mut sum = tensor(DType::F32, &[3, 4], 3);
        assert!(backend.scatter_add(&mut sum, &rows, &share).is_err(), "{share:?}");
    }
    let (mut narrow, share) =
        (tensor(DType::F32, &[3, 3], 3), Share { tokens: vec![0, 1], weights: vec![1.0; 2] });
    assert!(backend.scatter_add(&mut narrow, &rows, &share).is_err());
    let mut other = tensor(DType::BF16, &[3, 4], 3);
    assert!(backend.scatter_add(&mut other, &rows, &share).is_err());
}
