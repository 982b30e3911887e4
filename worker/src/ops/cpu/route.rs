//! From a router's scores to experts: softmax over all of them, and the most probable ones.

use super::softmax;
use crate::ops::routing::{Routes, Routing};
use crate::tensor::dtype::{Element, widen};
use crate::tensor::simd::InstructionSet;

/// Chooses experts for each row of `scores`, which are `experts` wide.
///
/// Between equal probabilities the lower expert goes first; torch leaves that open.
pub(super) fn route<E: Element>(
    set: InstructionSet,
    scores: &[E],
    experts: usize,
    routing: Routing,
) -> Routes {
    let rows = scores.len() / experts;
    let mut routes = Routes {
        per_token: routing.per_token,
        experts: Vec::with_capacity(rows * routing.per_token),
        weights: Vec::with_capacity(rows * routing.per_token),
    };
    let (mut row, mut probabilities) = (vec![0.0f32; experts], vec![0.0f32; experts]);
    let mut best = Vec::with_capacity(routing.per_token);
    for scores in scores.chunks_exact(experts) {
        widen(scores, &mut row);
        let maximum = softmax::largest(set, &row, 1.0);
        let sum = softmax::weights(set, &row, 1.0, maximum, &mut probabilities);
        for probability in &mut probabilities {
            *probability /= sum;
        }
        most_probable(&probabilities, routing.per_token, &mut best);
        let divisor = match routing.weighting.normalised {
            true => best.iter().map(|&(_, probability)| probability).sum(),
            false => 1.0f32,
        };
        for &(expert, probability) in &best {
            let weight = probability / divisor;
            routes.experts.push(expert);
            routes.weights.push(match routing.weighting.rounded {
                true => E::from_f32(weight).to_f32(),
                false => weight,
            });
        }
    }
    routes
}

/// Writes the `count` largest probabilities with their experts into `best`, largest first.
fn most_probable(probabilities: &[f32], count: usize, best: &mut Vec<(u32, f32)>) {
    best.clear();
    for (expert, &probability) in (0u32..).zip(probabilities) {
        if best.len() == count {
            match best.last() {
                Some(&(_, least)) if probability > least => best.pop(),
                _ => continue,
            };
        }
        let at = best.partition_point(|&(_, other)| other >= probability);
        best.insert(at, (expert, probability));
    }
}
