//! Likelihoods and divergences over a vocabulary that passes by in blocks, as on the CPU: logits are rounded to the model's
//! type, sums are f64.

use qlaunch_shared::Result;

use super::device::{Argument, Device, THREADS};
use super::product::{Matrix, Places, Product};
use super::tensor::CudaTensor;
use crate::ops::backend::{Prediction, RowScore};

/// Rows of the vocabulary whose logits are in memory at once.
const BLOCK: usize = 16384;
/// Numbers of a likelihood so far: the largest logit, the sum of exponentials under it, the target's logit.
const LIKELIHOOD: usize = 3;
/// Those of a comparison: two likelihoods, and the weighted difference.
const COMPARISON: usize = 2 * LIKELIHOOD + 1;

/// Predictions for some rows, with their targets.
pub(super) struct Scoring<'a> {
    pub(super) device: &'a Device,
    pub(super) targets: &'a [u32],
}

impl Scoring<'_> {
    /// Losses of one prediction.
    pub(super) fn losses(&self, of: Prediction<'_, CudaTensor>) -> Result<Vec<f64>> {
        let states = self.walk(&[of], "likelihood", LIKELIHOOD)?;
        Ok(states.chunks_exact(LIKELIHOOD).map(loss).collect())
    }

    /// Losses of a reference and a candidate, and the divergence between them.
    pub(super) fn compare(&self, of: [Prediction<'_, CudaTensor>; 2]) -> Result<Vec<RowScore>> {
        let states = self.walk(&of, "comparison", COMPARISON)?;
        Ok(states.chunks_exact(COMPARISON).map(score).collect())
    }

    /// Takes in the whole vocabulary; returns the state of every row.
    fn walk(&self, of: &[Prediction<'_, CudaTensor>], kernel: &str, width: usize) -> Result<Vec<f64>> {
        let device = self.device;
        let rows = self.targets.len();
        if rows == 0 {
            return Ok(Vec::new());
        }
        let start = |index: usize| {
            if index.is_multiple_of(LIKELIHOOD) && index < 2 * LIKELIHOOD { f64::NEG_INFINITY } else { 0.0 }
        };
        let begun: Vec<f64> = (0..rows * width).map(|at| start(at % width)).collect();
        let states = device.send(&begun)?;
        let targets = device.send(self.targets)?;
        let (dtype, vocabulary) = (of[0].hidden.dtype, of[0].head.shape[0]);
        let logits: Vec<CudaTensor> =
            of.iter().map(|_| device.room(dtype, [rows, BLOCK.min(vocabulary)])).collect::<Result<_>>()?;
        for first in (0..vocabulary).step_by(BLOCK) {
            let columns = (vocabulary - first).min(BLOCK);
            for (prediction, logits) in of.iter().zip(&logits) {
                let depth = prediction.head.shape[1];
                let product = Product {
                    rows,
                    columns,
                    depth,
                    x: Matrix { dtype, stride: depth, distance: 0 },
                    x_exchanged: false,
                    w: Matrix { dtype, stride: depth, distance: 0 },
                    w_exchanged: true,
                    out: Matrix { dtype, stride: columns, distance: 0 },
                    batch: 1,
                    biased: false,
                };
                let head = device.place_of(&prediction.head.data) + (first * depth * dtype.size()) as u64;
                let places = Places {
                    x: device.place_of(&prediction.hidden.data),
                    w: head,
                    bias: None,
                    out: device.place_of(&logits.data),
                };
                // SAFETY: sizes were checked, and the logits have room for a block.
                unsafe { device.blas.multiply(product, places) }?;
            }
            let mut arguments: Vec<Argument> = logits.iter().map(|logits| device.address(logits)).collect();
            arguments.extend([
                device.address_of(&targets),
                Argument::U64(columns as u64),
                Argument::U64(first as u64),
                device.address_of(&states),
            ]);
            device.launch((kernel, dtype), ((rows, 1), THREADS), &arguments)?;
        }
        device.fetch(&states)
    }
}

/// `ln Σ exp(logit)` of a likelihood.
fn log_sum(state: &[f64]) -> f64 {
    state[0] + state[1].ln()
}

fn loss(state: &[f64]) -> f64 {
    log_sum(state) - state[2]
}

fn score(state: &[f64]) -> RowScore {
    let (reference, candidate) = (&state[..LIKELIHOOD], &state[LIKELIHOOD..2 * LIKELIHOOD]);
    let difference = log_sum(candidate) - log_sum(reference);
    RowScore {
        reference_loss: loss(reference),
        loss: loss(candidate),
        divergence: state[2 * LIKELIHOOD] / reference[1] + difference,
    }
}
