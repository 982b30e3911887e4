//! The operations of a decoder, as every device offers them.
//!
//! A model computes in one type, `F32`, `BF16` or `F16`, and each operation rounds its result to it once: inside an
//! operation everything is `f32`. These are the rounding points of torch, so a bf16 model gives the activations that
//! ModelOpt's calibration saw (issue 2, "Must hold").
//!
//! Results do not depend on the number of threads, nor on which other rows are computed in the same call: every
//! output row is a function of its own input rows, the weights and the numeric path.

use qlaunch_shared::protocol::NumericPath;
use qlaunch_shared::{Error, Result};

use super::coding::{Coder, Rounding, Stored};
use super::routing::{Routes, Routing, Share};
use crate::tensor::DType;
use crate::tensor::host::{HostTensor, TensorView};

pub use qlaunch_shared::model::Activation;

/// Sizes of one causal self-attention call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Sequences, all of the same length.
    pub batch: usize,
    /// Tokens of each sequence.
    pub seq: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on the scores, usually `1 / √head_dim`.
    pub scale: f32,
    /// How many tokens a token sees, itself included; all before it if none.
    pub window: Option<usize>,
}

/// Cosines and sines of rotary position embedding, in the model's type.
#[derive(Debug, Clone)]
pub struct RotaryTables<T> {
    /// `[positions, rotary_dim / 2]`.
    pub cosines: T,
    /// `[positions, rotary_dim / 2]`.
    pub sines: T,
}

/// A linear layer: `x · weightᵀ + bias`.
#[derive(Debug)]
pub struct Linear<'a, T> {
    /// `[n, k]`.
    pub weight: &'a T,
    /// `[n]`.
    pub bias: Option<&'a T>,
}

impl<T> Clone for Linear<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Linear<'_, T> {}

/// What a model predicts for some rows, as far as its last hidden state: logits are `hidden · headᵀ`.
#[derive(Debug)]
pub struct Prediction<'a, T> {
    /// `[rows, k]`, after the final norm.
    pub hidden: &'a T,
    /// `[vocabulary, k]`.
    pub head: &'a T,
}

impl<T> Clone for Prediction<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Prediction<'_, T> {}

/// How one row of a candidate compares with the same row of a reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowScore {
    /// Negative log-likelihood of the target under the reference, in nats.
    pub reference_loss: f64,
    /// Negative log-likelihood of the target under the candidate, in nats.
    pub loss: f64,
    /// Kullback-Leibler divergence of the candidate from the reference, `Σ p_ref · ln(p_ref / p_cand)`, in nats.
    pub divergence: f64,
}

/// The largest magnitude of a tensor, and what could not be measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Magnitude {
    /// Largest absolute value among the finite elements; zero if there are none.
    pub amax: f32,
    /// Elements that are not a number.
    pub nans: u64,
    /// Infinite elements.
    pub infinities: u64,
}

impl Magnitude {
    /// The magnitude of both together.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            amax: self.amax.max(other.amax),
            nans: self.nans + other.nans,
            infinities: self.infinities + other.infinities,
        }
    }

    /// The largest absolute value, if every element was finite.
    ///
    /// # Errors
    /// Counts the elements that were not.
    pub fn finite(self) -> Result<f32> {
        if self.nans + self.infinities == 0 {
            return Ok(self.amax);
        }
        Err(Error::input(format!(
            "{} elements are not a number and {} are infinite",
            self.nans, self.infinities
        )))
    }
}

/// A device that carries out the operations of a decoder.
///
/// Activations are `[tokens, features]`, tokens of one sequence next to each other. All tensors of a call have the same
/// type, which is the type of the result. Every method fails if shapes or types do not fit together.
#[expect(clippy::missing_errors_doc, reason = "stated once for all methods, just above")]
pub trait Backend: Send + Sync {
    /// A tensor in the device's memory.
    type Tensor: Send + Sync + Clone;

    /// A moment in what the device is asked for, before which everything is where it does one thing after the other.
    type Moment: Default + Send;

    /// The numeric path, which a run pins: two backends of one path give the same bits.
    fn numeric_path(&self) -> NumericPath;

    /// Bytes of memory that are free, where the device has its own; the host's is the system's affair.
    fn free_memory(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Copies a tensor to the device.
    fn upload(&self, view: TensorView<'_>) -> Result<Self::Tensor>;

    /// Moves a tensor to the device; free where the device is the host.
    fn adopt(&self, tensor: HostTensor) -> Result<Self::Tensor>;

    /// Whether weights come to the device beside its computing: then a layer is brought while the one before is computed.
    fn brings_ahead(&self) -> bool {
        false
    }

    /// As [`Backend::adopt`], beside what the device computes: the tensor is there behind [`Backend::brought`].
    fn bring(&self, tensor: HostTensor) -> Result<Self::Tensor> {
        self.adopt(tensor)
    }

    /// As [`Backend::bring`], of a weight whose values the device makes of its codes; none where it leaves that to the host.
    fn bring_stored(&self, _weight: &Stored<'_>) -> Result<Option<Self::Tensor>> {
        Ok(None)
    }

    /// The moment behind all that was brought so far.
    fn brought(&self) -> Result<Self::Moment> {
        Ok(Self::Moment::default())
    }

    /// The moment behind all that the device was asked to compute so far.
    fn computed(&self) -> Result<Self::Moment> {
        Ok(Self::Moment::default())
    }

    /// Lets all that the device is asked to compute from now on wait for a moment.
    fn wait_for(&self, _moment: &Self::Moment) -> Result<()> {
        Ok(())
    }

    /// As [`Backend::inspect`], beside what the device computes: shows a tensor as it is at a moment.
    fn take(
        &self,
        tensor: &Self::Tensor,
        _since: &Self::Moment,
        look: &mut dyn FnMut(TensorView<'_>) -> Result<()>,
    ) -> Result<()> {
        self.inspect(tensor, look)
    }

    /// Does something on threads of the host that are there for what happens beside the device's computing.
    fn beside(&self, work: &mut (dyn FnMut() + Send)) {
        work();
    }

    /// Copies a tensor to the host.
    fn download(&self, tensor: &Self::Tensor) -> Result<HostTensor>;

    /// Shows a tensor to code that runs on the host: observers.
    fn inspect(
        &self,
        tensor: &Self::Tensor,
        look: &mut dyn FnMut(TensorView<'_>) -> Result<()>,
    ) -> Result<()>;

    /// Lets code that runs on the host change a tensor in place: simulated quantization.
    fn edit(
        &self,
        tensor: &mut Self::Tensor,
        change: &mut dyn FnMut(&mut HostTensor) -> Result<()>,
    ) -> Result<()>;

    /// Sides of a tensor, outermost first.
    fn shape<'a>(&self, tensor: &'a Self::Tensor) -> &'a [usize];

    /// Element type of a tensor.
    fn dtype(&self, tensor: &Self::Tensor) -> DType;

    /// Rows `ids` of `table` `[rows, width]`: `[ids, width]`. Embeds tokens; picks the rows that are evaluated.
    fn gather(&self, table: &Self::Tensor, ids: &[u32]) -> Result<Self::Tensor>;

    /// `x · weightᵀ + bias`: `[m, k]` to `[m, n]`. Sums run over `k` in order, in `f32`.
    fn linear(&self, x: &Self::Tensor, layer: Linear<'_, Self::Tensor>) -> Result<Self::Tensor>;

    /// `x / √(mean(x²) + eps)`, rounded, times `weight`, over each run of `weight`'s length: a whole row, or each head
    /// of a row where the weight is as wide as a head.
    fn rms_norm(&self, x: &Self::Tensor, weight: &Self::Tensor, eps: f32) -> Result<Self::Tensor>;

    /// Turns each head of `x` `[tokens, heads · head_dim]` by its token's position: `x · cos + rotate_half(x) · sin`,
    /// each product rounded. Dimensions of a head beyond the tables' width stay as they are.
    fn rotate(
        &self,
        x: &mut Self::Tensor,
        head_dim: usize,
        tables: &RotaryTables<Self::Tensor>,
        positions: &[u32],
    ) -> Result<()>;

    /// Causal attention of `q` `[batch · seq, heads · head_dim]` over `k` and `v` `[batch · seq, kv_heads · head_dim]`:
    /// `[batch · seq, heads · head_dim]`. Weights `exp(score − max)` are rounded before they meet the values, their sum
    /// is not, as in torch's CPU kernel.
    fn attention(
        &self,
        q: &Self::Tensor,
        k: &Self::Tensor,
        v: &Self::Tensor,
        shape: &AttentionShape,
    ) -> Result<Self::Tensor>;

    /// `activation(gate) · up`, the activation rounded before the product.
    fn activate(
        &self,
        gate: &Self::Tensor,
        up: &Self::Tensor,
        activation: Activation,
    ) -> Result<Self::Tensor>;

    /// Adds `other` to `sum` in place: the residual connection.
    fn add(&self, sum: &mut Self::Tensor, other: &Self::Tensor) -> Result<()>;

    /// Chooses experts by a router's scores `[tokens, experts]`: softmax in `f32` over all experts, then the most probable
    /// ones, the lower expert first where two are equally probable.
    fn route(&self, scores: &Self::Tensor, routing: Routing) -> Result<Routes>;

    /// Adds each of `rows` `[share's tokens, width]`, times its weight and rounded, to its token's row of `sum`
    /// `[tokens, width]`, in place.
    fn scatter_add(&self, sum: &mut Self::Tensor, rows: &Self::Tensor, share: &Share) -> Result<()>;

    /// The largest absolute value of a tensor, and how many elements are not finite.
    fn magnitude(&self, x: &Self::Tensor) -> Result<Magnitude>;

    /// Merges the magnitudes of each channel of `x` `[tokens, columns]` into `amax` and `sums`, both `[columns]`. Sums run
    /// over tokens in order, in `f64`.
    fn channels(&self, x: &Self::Tensor, amax: &mut [f32], sums: &mut [f64]) -> Result<()>;

    /// Adds `xᵀ · x` of `x` `[tokens, columns]` to the upper triangle of `sums` `[columns, columns]`, in `f32`; what is below
    /// the diagonal afterwards says nothing. Sums run over tokens in order. `together` rows always come in one
    /// call, whatever the batches: the tokens of a sample, or 1 where nothing is known of them.
    fn gram(&self, x: &Self::Tensor, together: usize, sums: &mut [f32]) -> Result<()>;

    /// Rounds an activation of rows of `columns` in place, as codecs say; false, and nothing is done, where the device leaves
    /// that to the host.
    fn round(&self, _x: &mut Self::Tensor, _columns: usize, _rounding: Rounding<'_>) -> Result<bool> {
        Ok(false)
    }

    /// What makes codes of weights on the device, where it does not leave that to the host.
    fn coder(&self) -> Option<&dyn Coder> {
        None
    }

    /// Negative log-likelihood of one target per row, in nats. Logits are rounded to the model's type, then read as
    /// `f32`; they are made and dropped in blocks of the vocabulary.
    fn losses(&self, prediction: Prediction<'_, Self::Tensor>, targets: &[u32]) -> Result<Vec<f64>>;

    /// Losses of a reference and a candidate and the divergence between them, row by row, in one pass over both
    /// vocabularies.
    fn compare(
        &self,
        reference: Prediction<'_, Self::Tensor>,
        candidate: Prediction<'_, Self::Tensor>,
        targets: &[u32],
    ) -> Result<Vec<RowScore>>;
}

impl AttentionShape {
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// Names the sizes that do not.
    pub fn check(&self) -> Result<()> {
        let sizes = [self.batch, self.seq, self.heads, self.kv_heads, self.head_dim];
        if sizes.contains(&0) || self.window == Some(0) {
            return Err(Error::input(format!("attention has a size of zero: {self:?}")));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(Error::input(format!(
                "{} query heads cannot share {} key-value heads evenly",
                self.heads, self.kv_heads
            )));
        }
        Ok(())
    }

    /// Tokens of all sequences.
    pub const fn tokens(&self) -> usize {
        self.batch * self.seq
    }

    /// Query heads that share one key-value head.
    pub const fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// The first token that token `row` of a sequence sees.
    pub fn first_seen(&self, row: usize) -> usize {
        self.window.map_or(0, |window| (row + 1).saturating_sub(window))
    }
}
