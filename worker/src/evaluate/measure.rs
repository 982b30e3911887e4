//! Perplexity and KL divergence from final hidden states.
//!
//! Windows do not overlap and have no token before their first; each but the first token of a window is scored. Logits
//! are rounded to the model's type and read as f32.

use qlaunch_shared::Result;
use qlaunch_shared::protocol::Evaluation;

use super::hope::Hope;
use crate::ops::{Backend, Prediction, RowScore};
use crate::tokens::Samples;

/// What a model predicts: final hidden states, a tensor a batch, and the output head.
pub struct Against<'a, B: Backend> {
    /// `[tokens, hidden_size]` each.
    pub hidden: &'a [B::Tensor],
    /// `[vocabulary, hidden_size]`.
    pub head: &'a B::Tensor,
}

/// Scores predictions on the samples that they were made for; with a reference, also the divergence from it.
///
/// # Errors
/// Hidden states and samples do not go together, or the candidate is hopeless.
pub fn measure<B: Backend>(
    backend: &B,
    samples: &Samples,
    candidate: &Against<'_, B>,
    (reference, hope): (Option<&Against<'_, B>>, &Hope),
    progress: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Evaluation> {
    let length = samples.length;
    let (mut loss, mut before, mut divergence, mut scored) = (0.0, 0.0, 0.0, 0u64);
    let mut begin = 0;
    for (index, hidden) in candidate.hidden.iter().enumerate() {
        let tokens = backend.shape(hidden)[0];
        let begin_of_batch = begin;
        let ids = &samples.ids[begin..begin + tokens];
        begin += tokens;
        // One window at a time, so that memory does not grow with the batch.
        for (window, ids) in ids.chunks(length).enumerate() {
            let rows: Vec<u32> = (0..length - 1).map(|row| (window * length + row) as u32).collect();
            let targets = &ids[1..];
            let own = backend.gather(hidden, &rows)?;
            let own = Prediction { hidden: &own, head: candidate.head };
            match reference {
                Some(reference) => {
                    let other = backend.gather(&reference.hidden[index], &rows)?;
                    let other = Prediction { hidden: &other, head: reference.head };
                    let scores: Vec<RowScore> = backend.compare(other, own, targets)?;
                    loss += scores.iter().map(|score| score.loss).sum::<f64>();
                    before += scores.iter().map(|score| score.reference_loss).sum::<f64>();
                    divergence += scores.iter().map(|score| score.divergence).sum::<f64>();
                }
                None => loss += backend.losses(own, targets)?.iter().sum::<f64>(),
            }
            scored += rows.len() as u64;
            hope.check(loss, begin_of_batch / length + window + 1, samples)?;
            progress(length)?;
        }
    }
    let nll = loss / scored as f64;
    Ok(Evaluation {
        perplexity: nll.exp(),
        nll,
        tokens: scored,
        windows: samples.count(),
        kl_mean: reference.map(|_| divergence / scored as f64),
        reference_perplexity: reference.map(|_| (before / scored as f64).exp()),
    })
}
