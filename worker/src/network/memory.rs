//! What a pass needs of a device's memory, reckoned before it begins: one that would not fit is refused with the figures,
//! instead of failing in the middle.
//!
//! On a device that brings layers ahead, two are there at once. Pinned memory of the host is four pieces of 16 MiB, whatever the model.

use qlaunch_shared::model::{Model, ModelConfig};
use qlaunch_shared::{Error, Result};

use super::stage::Stage;

/// Work areas of libraries, and what is lost between pieces of memory.
pub(super) const OVERHEAD: u64 = 256 << 20;
/// What the parts of largest magnitudes need, whatever the activation.
const MAGNITUDES: usize = 128 << 10;
/// Tokens whose channels are summed by one thread, in f32 and f64.
const STRETCH: usize = 256;
/// Logits of a token that are there at once, of a candidate and its reference.
const LOGITS: usize = 2 * 16384;

/// What a tap has the device do beside the forward pass, for all candidates that it looks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demands {
    /// Channels of the widest activation whose products are summed.
    pub gram: usize,
    /// Whether weights become codes, or come as codes, while layers are there.
    pub codes: bool,
    /// Whether batches may go through a layer again, whose inputs are kept.
    pub repeats: bool,
    /// Whether what comes behind the last layer is normed, and predicts.
    pub scores: bool,
}

/// A pass, as far as its memory is concerned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Tokens whose hidden states are in memory at once.
    pub(super) tokens: usize,
    /// Tokens of a batch.
    pub(super) batch: usize,
    /// Tokens of a sample.
    pub(super) length: usize,
    /// Batches on their way to another rank, and those that go through layers together beside their inputs.
    pub(super) moving: usize,
    /// Whether each layer is brought while the one before is computed.
    pub(super) is_ahead: bool,
    pub(super) demands: Demands,
}

/// Bytes that a pass needs where it needs most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Needs {
    /// Hidden states: those that go in, those that come out, those on their way.
    states: u64,
    /// Weights that are there together: layers, or the embedding, or the output head.
    weights: u64,
    /// What a batch becomes inside of a layer, or its logits.
    batch: u64,
    /// Products of channels, or a weight that becomes codes.
    sums: u64,
}

impl Needs {
    /// What a stage needs.
    pub(super) fn of(model: &Model, stage: &Stage<'_>, load: Load) -> Self {
        let config = &model.config;
        let (size, demands) = (config.dtype.size(), load.demands);
        let states = (load.tokens * config.hidden_size * size) as u64;
        let moving = (load.moving * load.batch * config.hidden_size * size) as u64;
        let tables = (load.length * config.head_dim * size) as u64;
        let weights = Weights::of(model, stage, load.is_ahead);
        let outside = if stage.is_first() || stage.is_last() { weights.outside } else { 0 };
        let embedding = Self { states, weights: outside, batch: tables, sums: 0 };
        // A sum is brought in f32 and back; a weight has its codes and their scales beside it.
        let sums = (4 * demands.gram * demands.gram).max(if demands.codes {
            weights.largest * (size + 2)
        } else {
            0
        });
        // Numbers of tokens and positions, parts of sums.
        let small = MAGNITUDES + 16 * load.batch + 12 * load.batch.div_ceil(STRETCH) * widest(config);
        let layers = Self {
            states: states * if demands.repeats { 2 } else { 1 } + moving,
            weights: weights.together,
            batch: inside(config, load) + tables,
            sums: (sums + small) as u64,
        };
        let logits = load.length * (LOGITS.min(2 * config.vocabulary) + 2 * config.hidden_size) * size;
        let behind = match demands.scores && stage.is_last() {
            true => Self { states: 2 * states, weights: outside, batch: logits as u64 + tables, sums: 0 },
            false => embedding,
        };
        [embedding, layers, behind].into_iter().max_by_key(|needs| needs.total()).unwrap_or(layers)
    }

    /// All of it.
    pub(super) fn total(self) -> u64 {
        self.states + self.weights + self.batch + self.sums + OVERHEAD
    }

    /// Refuses a pass that does not fit into what is free.
    ///
    /// # Errors
    /// Gives what is free, what is needed, and of what.
    pub(super) fn admit(self, free: Option<u64>) -> Result<()> {
        let Some(free) = free.filter(|free| *free < self.total()) else { return Ok(()) };
        let parts = [
            ("hidden states", self.states),
            ("weights", self.weights),
            ("a batch", self.batch),
            ("sums and codes", self.sums),
        ];
        let parts = parts.map(|(name, bytes)| format!("{} of {name}", gigabytes(bytes))).join(", ");
        let needed = gigabytes(self.total());
        Err(Error::input(format!("the GPU has {} free, and this pass needs {needed}: {parts}", gigabytes(free))).hint(
            "give fewer samples, a smaller `--batch-size` or more ranks, or `--device cpu`; `nvidia-smi` shows who has the rest",
        ))
    }
}

/// Bytes of what a batch becomes inside of a layer: the most that is there at once, with the copies that simulated rounding makes for
/// each reader of an activation.
fn inside(config: &ModelConfig, load: Load) -> u64 {
    let size = config.dtype.size();
    let (hidden, queries, keys) =
        (config.hidden_size, config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let experts = config.experts.as_ref().map_or(0, |experts| experts.intermediate_size);
    let inner = config.intermediate_size.max(experts);
    let projections = 4 * hidden + 2 * queries + 2 * keys;
    // A branch beside a linear has its own copy of what the linear reads, and what it makes of it.
    let output = 4 * queries + 2 * keys + 2 * hidden;
    // Of experts there are their tokens' rows, the sum, and what one of them makes.
    let rows = if experts > 0 { 2 * hidden } else { 0 };
    let mlp = rows + 3 * hidden + 3 * inner;
    let row = projections.max(output).max(mlp) * size;
    // Scores in f32 and their weights, of one sample at a time.
    let scores = config.heads * load.length * (load.length * (4 + size) + 4 + 4 * config.head_dim);
    let attention = load.batch * (2 * queries + 2 * keys) * size + scores;
    // What is summed channel by channel is copied where it begins within a batch.
    (load.batch * row).max(attention) as u64 + (load.batch * widest(config) * size) as u64
}

/// Channels of the widest activation that a linear reads.
fn widest(config: &ModelConfig) -> usize {
    let experts = config.experts.as_ref().map_or(0, |experts| experts.intermediate_size);
    config.hidden_size.max(config.intermediate_size).max(experts).max(config.heads * config.head_dim)
}

/// Bytes of weights.
struct Weights {
    /// Of layers that are there together.
    together: u64,
    /// Of the larger of embedding and output head.
    outside: u64,
    /// Elements of the largest one in a layer.
    largest: usize,
}

impl Weights {
    fn of(model: &Model, stage: &Stage<'_>, is_ahead: bool) -> Self {
        let mut layers = vec![0u64; model.config.layers];
        let (mut outside, mut largest) = (0, 0);
        for part in &model.modules {
            let elements: usize = part.role.weight_shape().map_or(0, |shape| shape.iter().product());
            let bias = model.bias(part).map_or(0, |tensor| tensor.length);
            let bytes = (elements * model.config.dtype.size()) as u64 + bias;
            match part.layer {
                Some(layer) => {
                    layers[layer] += bytes;
                    largest = elements.max(largest);
                }
                None => outside = bytes.max(outside),
            }
        }
        let own = &layers[stage.layers.clone()];
        // Behind the last one comes the first again, with the next batches.
        let next = own.iter().cycle().skip(1);
        let pairs = own.iter().zip(next).map(|(layer, next)| layer + if is_ahead { *next } else { 0 });
        Self { together: pairs.max().unwrap_or(0), outside, largest }
    }
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
        let needs =
            Needs { states: 3_000_000_000, weights: 400_000_000, batch: 50_000_001, sums: 1_000_000_000 };
        assert!(needs.admit(None).is_ok() && needs.admit(Some(needs.total())).is_ok());
        let error = needs.admit(Some(needs.total() - 1)).unwrap_err();
        for figure in [
            "4.72 GB free",
            "needs 4.72 GB",
            "3.00 GB of hidden",
            "0.40 GB of weights",
            "0.06 GB of a batch",
            "1.00 GB of sums",
        ] {
            assert!(error.message.contains(figure), "`{figure}` is not in {error}");
        }
        assert!(error.hint.is_some_and(|hint| hint.contains("--device cpu")));
    }
}
