//! What a pass needs of a device's memory, reckoned before it begins: one that would not fit is refused with the figures,
//! instead of failing in the middle.

use qlaunch_shared::model::Model;
use qlaunch_shared::{Error, Result};

use super::stage::Stage;

/// Work areas of libraries, and what is lost between pieces of memory.
const OVERHEAD: u64 = 256 << 20;

/// A pass, as far as its memory is concerned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Tokens whose hidden states are in memory at once.
    pub(super) tokens: usize,
    /// Tokens of a batch.
    pub(super) batch: usize,
    /// Tokens of a sample.
    pub(super) length: usize,
}

/// Bytes that a pass needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Needs {
    /// Hidden states, those that come out of a layer beside those that went in.
    states: u64,
    /// The largest layer of the stage, or embedding or output head.
    weights: u64,
    /// What a batch becomes inside of a layer.
    batch: u64,
}

impl Needs {
    /// What a stage needs.
    pub(super) fn of(model: &Model, stage: &Stage<'_>, load: Load) -> Self {
        let config = &model.config;
        let size = config.dtype.size();
        let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        // The residual, its norm and the sum; projections and their copies for simulated rounding; the MLP.
        let row = 4 * config.hidden_size + 2 * queries + 4 * keys + 4 * config.intermediate_size;
        // Scores in f32 and their weights, of one sample at a time.
        let scores = config.heads * load.length * (load.length * (4 + size) + 4 * config.head_dim);
        Self {
            states: 2 * (load.tokens * config.hidden_size * size) as u64,
            weights: largest(model, stage),
            batch: (load.batch * row * size + scores) as u64,
        }
    }

    /// All of it.
    pub(super) fn total(self) -> u64 {
        self.states + self.weights + self.batch + OVERHEAD
    }

    /// Refuses a pass that does not fit into what is free.
    ///
    /// # Errors
    /// Gives what is free, what is needed, and of what.
    pub(super) fn admit(self, free: Option<u64>) -> Result<()> {
        let Some(free) = free.filter(|free| *free < self.total()) else { return Ok(()) };
        let parts =
            [("hidden states", self.states), ("a layer's weights", self.weights), ("a batch", self.batch)];
        let parts = parts.map(|(name, bytes)| format!("{} of {name}", gigabytes(bytes))).join(", ");
        let needed = gigabytes(self.total());
        Err(Error::input(format!("the GPU has {} free, and this pass needs {needed}: {parts}", gigabytes(free))).hint(
            "give fewer samples, a smaller `--batch-size` or more ranks, or `--device cpu`; `nvidia-smi` shows who has the rest",
        ))
    }
}

/// Bytes of the weights that are there together: those of a layer, or of what stands outside of layers.
fn largest(model: &Model, stage: &Stage<'_>) -> u64 {
    let mut layers = vec![0u64; model.config.layers];
    let mut outside = 0;
    for part in &model.modules {
        let elements: usize = part.role.weight_shape().map_or(0, |shape| shape.iter().product());
        let bytes = (elements * model.config.dtype.size()) as u64;
        match part.layer {
            Some(layer) => layers[layer] += bytes,
            None if stage.is_first() || stage.is_last() => outside = bytes.max(outside),
            None => {}
        }
    }
    layers[stage.layers.clone()].iter().copied().fold(outside, u64::max)
}

/// Bytes as people say them, rounded up: what is needed is never made to look less.
fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", (bytes as f64 / 1e7).ceil() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_that_does_not_fit_is_refused_with_every_figure() {
        let needs = Needs { states: 3_000_000_000, weights: 400_000_000, batch: 50_000_001 };
        assert!(needs.admit(None).is_ok() && needs.admit(Some(needs.total())).is_ok());
        let error = needs.admit(Some(needs.total() - 1)).unwrap_err();
        for figure in
            ["3.72 GB free", "needs 3.72 GB", "3.00 GB of hidden", "0.40 GB of a layer", "0.06 GB of a batch"]
        {
            assert!(error.message.contains(figure), "`{figure}` is not in {error}");
        }
        assert!(error.hint.is_some_and(|hint| hint.contains("--device cpu")));
    }
}
