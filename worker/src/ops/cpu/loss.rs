//! Likelihoods and divergences over a vocabulary that passes by in blocks.
//!
//! A row keeps the largest logit so far and sums taken under it, so that the logits of a whole vocabulary are never in
//! memory at once. Exponentials are `f32`, sums are `f64`; blocks start at fixed places, so rows do not affect each other.

use rayon::prelude::*;

use crate::ops::backend::RowScore;
use crate::tensor::dtype::Element;
use crate::tensor::simd::{InstructionSet, dispatched};

use super::exponential::exp;

/// Rows of the vocabulary whose logits are in memory at once.
pub(super) const VOCABULARY_BLOCK: usize = 4096;
/// Sums that run side by side: the order of summation is the same whatever the registers' width.
const LANES: usize = 16;

/// `ln Σ exp(logit)` of one row so far, in two parts: a maximum, and a sum under it.
#[derive(Debug, Clone, Copy)]
struct Normaliser {
    maximum: f32,
    sum: f64,
}

/// One row's likelihood so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Likelihood {
    normaliser: Normaliser,
    target_logit: f64,
}

/// One row's comparison so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Comparison {
    reference: Likelihood,
    candidate: Likelihood,
    /// `Σ exp(reference logit − reference maximum) · (reference logit − candidate logit)`.
    weighted_difference: f64,
}

impl Likelihood {
    pub(super) const START: Self =
        Self { normaliser: Normaliser { maximum: f32::NEG_INFINITY, sum: 0.0 }, target_logit: f64::NAN };

    /// Negative log-likelihood of the target, in nats, once the vocabulary is through.
    pub(super) fn loss(&self) -> f64 {
        self.log_sum() - self.target_logit
    }

    fn log_sum(&self) -> f64 {
        f64::from(self.normaliser.maximum) + self.normaliser.sum.ln()
    }

    /// Takes in the logits of the vocabulary from `first` on; returns the factor that the old sum was scaled by.
    #[inline(always)]
    fn take_in<E: Element>(&mut self, logits: &[E], first: usize, target: u32) -> f64 {
        if let Some(logit) = (target as usize).checked_sub(first).and_then(|place| logits.get(place)) {
            self.target_logit = f64::from(logit.to_f32());
        }
        let maximum = largest(logits).max(self.normaliser.maximum);
        let factor = f64::from(self.normaliser.maximum - maximum).exp();
        self.normaliser =
            Normaliser { maximum, sum: self.normaliser.sum * factor + sum_of_exponentials(logits, maximum) };
        factor
    }
}

impl Comparison {
    pub(super) const START: Self =
        Self { reference: Likelihood::START, candidate: Likelihood::START, weighted_difference: 0.0 };

    /// The row's scores once the vocabulary is through.
    pub(super) fn score(&self) -> RowScore {
        let mean_difference = self.weighted_difference / self.reference.normaliser.sum;
        RowScore {
            reference_loss: self.reference.loss(),
            loss: self.candidate.loss(),
            divergence: mean_difference - self.reference.log_sum() + self.candidate.log_sum(),
        }
    }
}

/// Takes in one block's logits `[rows, width]` of the vocabulary from `first` on.
pub(super) fn take_in<E: Element>(
    set: InstructionSet,
    rows: &mut [Likelihood],
    (logits, first): (&[E], usize),
    targets: &[u32],
) {
    let width = logits.len() / rows.len();
    let logits = logits.par_chunks_exact(width);
    rows.par_iter_mut().zip(logits).zip(targets).for_each(|((row, logits), target)| {
        take_in_row(set, row, logits, first, *target);
    });
}

/// Takes in one block's logits of both models, each `[rows, width]`, of the vocabulary from `first` on.
pub(super) fn compare<E: Element>(
    set: InstructionSet,
    rows: &mut [Comparison],
    (reference, candidate, first): (&[E], &[E], usize),
    targets: &[u32],
) {
    let width = reference.len() / rows.len();
    let logits = reference.par_chunks_exact(width).zip(candidate.par_chunks_exact(width));
    rows.par_iter_mut().zip(logits).zip(targets).for_each(|((row, (reference, candidate)), target)| {
        take_in_row(set, &mut row.candidate, candidate, first, *target);
        compare_row(set, row, reference, candidate, (first, *target));
    });
}

dispatched! {
    fn take_in_row<E: Element>(row: &mut Likelihood, logits: &[E], first: usize, target: u32) {
        row.take_in(logits, first, target);
    }
}

dispatched! {
    fn compare_row<E: Element>(row: &mut Comparison, reference: &[E], candidate: &[E], place: (usize, u32)) {
        let factor = row.reference.take_in(reference, place.0, place.1);
        let maximum = row.reference.normaliser.maximum;
        row.weighted_difference =
            row.weighted_difference * factor + sum_of_differences(reference, candidate, maximum);
    }
}

#[inline(always)]
fn largest<E: Element>(logits: &[E]) -> f32 {
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut maxima = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (maximum, logit) in maxima.iter_mut().zip(chunk) {
            *maximum = maximum.max(logit.to_f32());
        }
    }
    maxima.into_iter().chain(rest.iter().map(|logit| logit.to_f32())).fold(f32::NEG_INFINITY, f32::max)
}

#[inline(always)]
fn sum_of_exponentials<E: Element>(logits: &[E], maximum: f32) -> f64 {
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut sums = [0.0f64; LANES];
    for chunk in chunks {
        for (sum, logit) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(exp(logit.to_f32() - maximum));
        }
    }
    for (sum, logit) in sums.iter_mut().zip(rest) {
        *sum += f64::from(exp(logit.to_f32() - maximum));
    }
    sums.into_iter().sum()
}

#[inline(always)]
fn sum_of_differences<E: Element>(reference: &[E], candidate: &[E], maximum: f32) -> f64 {
    let (references, reference_rest) = reference.as_chunks::<LANES>();
    let (candidates, candidate_rest) = candidate.as_chunks::<LANES>();
    let mut sums = [0.0f64; LANES];
    for (references, candidates) in references.iter().zip(candidates) {
        for ((sum, reference), candidate) in sums.iter_mut().zip(references).zip(candidates) {
            *sum += weighted_difference(reference.to_f32(), candidate.to_f32(), maximum);
        }
    }
    for ((sum, reference), candidate) in sums.iter_mut().zip(reference_rest).zip(candidate_rest) {
        *sum += weighted_difference(reference.to_f32(), candidate.to_f32(), maximum);
    }
    sums.into_iter().sum()
}

#[inline(always)]
fn weighted_difference(reference: f32, candidate: f32, maximum: f32) -> f64 {
    f64::from(exp(reference - maximum)) * f64::from(reference - candidate)
}
