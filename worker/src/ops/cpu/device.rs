//! A CPU as a [`Backend`]: checks operands, finds their type, and hands them to the loops on its own threads.

use qlaunch_shared::protocol::NumericPath;
use qlaunch_shared::{Error, Result};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::attention::Attention;
use super::elements::{ModelElement, typed};
use super::gemm::{MicroKernel, PackFrom, Product, WithKernel, linear};
use super::gram::Addition;
use super::loss::{Comparison, Likelihood, VOCABULARY_BLOCK};
use super::path::{CpuPath, instruction_set};
use super::rotary::Turns;
use super::scratch::Scratch;
use super::{channels, elementwise, gather, loss, magnitude, norm, rotary, route, scatter};
use crate::ops::backend::{
    Activation, AttentionShape, Backend, Linear, Magnitude, Prediction, RotaryTables, RowScore,
};
use crate::ops::operands;
use crate::ops::routing::{Routes, Routing, Share};
use crate::tensor::host::{HostTensor, TensorView, for_each_dtype};
use crate::tensor::{DType, Held};

/// Elements that one thread takes at a time in operations without matrix products.
const STRETCH: usize = 1 << 15;

/// A CPU, some of its threads, and the numeric path that fixes its bits.
#[derive(Debug)]
pub struct CpuBackend {
    path: NumericPath,
    threads: ThreadPool,
    scratch: Scratch,
}

impl CpuBackend {
    /// A backend of `threads` threads on `path`.
    ///
    /// # Errors
    /// This CPU lacks the path's instructions, `threads` is zero, or the system refuses to start them.
    pub fn new(threads: usize, path: NumericPath) -> Result<Self> {
        let path = path.require()?;
        if threads == 0 {
            return Err(Error::usage("a CPU backend needs at least one thread"));
        }
        let threads = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("ops-{index}"))
            .build()
            .map_err(|error| Error::input(format!("cannot start {threads} threads: {error}")))?;
        Ok(Self { path, threads, scratch: Scratch::default() })
    }

    /// Runs something on this backend's threads. What it has the backend do waits for no other thread then, and what it does
    /// on the host shares the threads.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.threads.install(work)
    }

    fn linear_of<E: ModelElement>(
        &self,
        x: &HostTensor,
        layer: Linear<'_, HostTensor>,
    ) -> Result<HostTensor> {
        let (n, k) = operands::linear(x, layer.weight, layer.bias)?;
        let bias = layer.bias.map(|bias| typed::<E>("linear", bias)).transpose()?;
        let product = Product { x: typed::<E>("linear", x)?, w: typed("linear", layer.weight)?, bias, k };
        let mut out = Held::room(product.x.len() / k * n);
        self.multiply(product, &mut out);
        let mut shape = x.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = n;
        }
        HostTensor::of(shape, out)
    }

    /// Multiplies on this backend's threads with its path's kernel.
    fn multiply<E: ModelElement>(&self, product: Product<'_, E>, out: &mut [E]) {
        let work = LinearWork { product, out, scratch: &self.scratch };
        self.threads.install(|| E::with_kernel(self.path, work));
    }

    fn rms_norm_of<E: ModelElement>(&self, x: &[E], weight: &HostTensor, eps: f32) -> Result<Held<E>> {
        let weight = typed::<E>("rms_norm", weight)?;
        if weight.is_empty() || !x.len().is_multiple_of(weight.len()) {
            let sizes = format!("{} elements are no whole number of runs of {}", x.len(), weight.len());
            return Err(operands::misfit("rms_norm", sizes));
        }
        let mut out = Held::room(x.len());
        let stretch = (STRETCH / weight.len()).max(1) * weight.len();
        let set = instruction_set(self.path);
        self.threads.install(|| {
            let pairs = x.par_chunks(stretch).zip(out.par_chunks_mut(stretch));
            pairs.for_each(|(x, out)| norm::rms_norm(set, x, weight, eps, out));
        });
        Ok(out)
    }

    fn rotate_of<E: ModelElement>(&self, x: &mut [E], turns: Turns<'_, E>, positions: &[u32]) {
        let width = x.len() / positions.len().max(1);
        let rows = (STRETCH / width.max(1)).max(1);
        let set = instruction_set(self.path);
        self.threads.install(|| {
            let pairs = x.par_chunks_mut((rows * width).max(1)).zip(positions.par_chunks(rows));
            pairs.for_each(|(x, positions)| rotary::rotate(set, x, turns, positions));
        });
    }

    fn attention_of<E: ModelElement>(&self, q: &[E], k: &[E], v: &[E], shape: &AttentionShape) -> Held<E> {
        let mut out = Held::room(q.len());
        let (scratch, set) = (&self.scratch, instruction_set(self.path));
        let work = Attention { q, k, v, shape: *shape, out: &mut out, scratch, set };
        self.threads.install(|| E::with_kernel(self.path, work));
        out
    }

    /// Walks over the vocabulary block by block: `take_in` gets the range's first token and both operands' blocks.
    fn for_each_block<E: ModelElement>(
        &self,
        predictions: &[(&[E], &[E])],
        k: usize,
        mut take_in: impl FnMut(usize, &[&[E]]) + Send,
    ) {
        let vocabulary = predictions.iter().map(|(_, head)| head.len() / k).min().unwrap_or(0);
        for first in (0..vocabulary).step_by(VOCABULARY_BLOCK) {
            let width = (vocabulary - first).min(VOCABULARY_BLOCK);
            let logits: Vec<_> = predictions
                .iter()
                .map(|(x, head)| {
                    let mut logits = self.scratch.take::<E>(x.len() / k * width);
                    let w = &head[first * k..(first + width) * k];
                    self.multiply(Product { x, w, bias: None, k }, &mut logits);
                    logits
                })
                .collect();
            let logits: Vec<&[E]> = logits.iter().map(|logits| &**logits).collect();
            self.threads.install(|| take_in(first, &logits));
        }
    }
}

/// [`linear`] for whichever kernel it meets.
struct LinearWork<'a, E> {
    product: Product<'a, E>,
    out: &'a mut [E],
    scratch: &'a Scratch,
}

impl<E: ModelElement> WithKernel<E> for LinearWork<'_, E> {
    type Output = ();

    fn run<K: MicroKernel>(self, kernel: K)
    where
        K::Packed: PackFrom<E>,
    {
        linear(kernel, self.product, self.out, self.scratch);
    }
}

/// The elements of a prediction with the sizes checked: hidden states, head, `k`.
fn prediction<'a, E: ModelElement>(
    prediction: Prediction<'a, HostTensor>,
    targets: &[u32],
) -> Result<(&'a [E], &'a [E], usize)> {
    let (vocabulary, k) = operands::linear(prediction.hidden, prediction.head, None)?;
    let (hidden, head) = (typed::<E>("losses", prediction.hidden)?, typed::<E>("losses", prediction.head)?);
    operands::targets(hidden.len() / k, vocabulary, targets)?;
    Ok((hidden, head, k))
}

impl CpuBackend {
    fn losses_of<E: ModelElement>(
        &self,
        of: Prediction<'_, HostTensor>,
        targets: &[u32],
    ) -> Result<Vec<f64>> {
        let (hidden, head, k) = prediction::<E>(of, targets)?;
        let set = instruction_set(self.path);
        let mut rows = vec![Likelihood::START; targets.len()];
        if !rows.is_empty() {
            self.for_each_block(&[(hidden, head)], k, |first, logits| {
                loss::take_in(set, &mut rows, (logits[0], first), targets);
            });
        }
        Ok(rows.iter().map(Likelihood::loss).collect())
    }

    fn compare_of<E: ModelElement>(
        &self,
        of: [Prediction<'_, HostTensor>; 2],
        targets: &[u32],
    ) -> Result<Vec<RowScore>> {
        let [(hidden, head, k), (other_hidden, other_head, other_k)] =
            [prediction::<E>(of[0], targets)?, prediction::<E>(of[1], targets)?];
        if k != other_k || head.len() != other_head.len() {
            return Err(operands::misfit(
                "compare",
                format!("heads of {} and {} elements", head.len(), other_head.len()),
            ));
        }
        let set = instruction_set(self.path);
        let mut rows = vec![Comparison::START; targets.len()];
        if !rows.is_empty() {
            self.for_each_block(&[(hidden, head), (other_hidden, other_head)], k, |first, logits| {
                loss::compare(set, &mut rows, (logits[0], logits[1], first), targets);
            });
        }
        Ok(rows.iter().map(Comparison::score).collect())
    }
}

impl Backend for CpuBackend {
    type Tensor = HostTensor;
    type Moment = ();

    fn numeric_path(&self) -> NumericPath {
        self.path
    }

    fn upload(&self, view: TensorView<'_>) -> Result<HostTensor> {
        Ok(view.to_owned())
    }

    fn adopt(&self, tensor: HostTensor) -> Result<HostTensor> {
        Ok(tensor)
    }

    fn download(&self, tensor: &HostTensor) -> Result<HostTensor> {
        Ok(tensor.clone())
    }

    fn inspect(&self, tensor: &HostTensor, look: &mut dyn FnMut(TensorView<'_>) -> Result<()>) -> Result<()> {
        look(tensor.view())
    }

    fn edit(
        &self,
        tensor: &mut HostTensor,
        change: &mut dyn FnMut(&mut HostTensor) -> Result<()>,
    ) -> Result<()> {
        change(tensor)
    }

    fn shape<'a>(&self, tensor: &'a HostTensor) -> &'a [usize] {
        tensor.shape()
    }

    fn dtype(&self, tensor: &HostTensor) -> DType {
        tensor.dtype()
    }

    fn gather(&self, table: &HostTensor, ids: &[u32]) -> Result<HostTensor> {
        let (_, width) = operands::matrix("gather", table)?;
        for_each_dtype!(Storage, table.storage(), elements => {
            HostTensor::new([ids.len(), width], gather::gather(elements, width, ids)?)
        })
    }

    fn linear(&self, x: &HostTensor, layer: Linear<'_, HostTensor>) -> Result<HostTensor> {
        match x.dtype() {
            DType::F32 => self.linear_of::<f32>(x, layer),
            DType::BF16 => self.linear_of::<half::bf16>(x, layer),
            _ => self.linear_of::<half::f16>(x, layer),
        }
    }

    fn rms_norm(&self, x: &HostTensor, weight: &HostTensor, eps: f32) -> Result<HostTensor> {
        for_each_dtype!(Storage, x.storage(), elements => {
            HostTensor::of(x.shape(), self.rms_norm_of(elements, weight, eps)?)
        })
    }

    fn rotate(
        &self,
        x: &mut HostTensor,
        head_dim: usize,
        tables: &RotaryTables<HostTensor>,
        positions: &[u32],
    ) -> Result<()> {
        let half = operands::rotary(x, head_dim, tables, positions)?;
        for_each_dtype!(Storage, x.storage_mut(), elements => {
            let (cosines, sines) = (typed("rotate", &tables.cosines)?, typed("rotate", &tables.sines)?);
            self.rotate_of(elements, Turns { cosines, sines, half, head_dim }, positions);
        });
        Ok(())
    }

    fn attention(
        &self,
        q: &HostTensor,
        k: &HostTensor,
        v: &HostTensor,
        shape: &AttentionShape,
    ) -> Result<HostTensor> {
        operands::attention(q, k, v, shape)?;
        for_each_dtype!(Storage, q.storage(), elements => {
            let (k, v) = (typed("attention", k)?, typed("attention", v)?);
            HostTensor::of(q.shape(), self.attention_of(elements, k, v, shape))
        })
    }

    fn activate(&self, gate: &HostTensor, up: &HostTensor, activation: Activation) -> Result<HostTensor> {
        operands::same_shape("activate", gate, up)?;
        let set = instruction_set(self.path);
        for_each_dtype!(Storage, gate.storage(), elements => {
            let (up, mut out) = (typed("activate", up)?, Held::room(elements.len()));
            self.threads.install(|| {
                let inputs = elements.par_chunks(STRETCH).zip(up.par_chunks(STRETCH));
                let parts = inputs.zip(out.par_chunks_mut(STRETCH));
                parts.for_each(|(inputs, out)| elementwise::activate(set, inputs, activation, out));
            });
            HostTensor::of(gate.shape(), out)
        })
    }

    fn add(&self, sum: &mut HostTensor, other: &HostTensor) -> Result<()> {
        operands::same_shape("add", sum, other)?;
        let set = instruction_set(self.path);
        for_each_dtype!(Storage, sum.storage_mut(), elements => {
            let other = typed("add", other)?;
            self.threads.install(|| {
                let pairs = elements.par_chunks_mut(STRETCH).zip(other.par_chunks(STRETCH));
                pairs.for_each(|(sum, other)| elementwise::add(set, sum, other));
            });
        });
        Ok(())
    }

    fn route(&self, scores: &HostTensor, routing: Routing) -> Result<Routes> {
        let experts = operands::routing(scores, routing.per_token)?;
        let set = instruction_set(self.path);
        let stretch = (STRETCH / experts).max(1) * experts;
        let parts: Vec<Routes> = for_each_dtype!(Storage, scores.storage(), elements => self.threads.install(|| {
            elements.par_chunks(stretch).map(|scores| route::route(set, scores, experts, routing)).collect()
        }));
        Ok(Routes::concatenated(routing.per_token, parts))
    }

    fn scatter_add(&self, sum: &mut HostTensor, rows: &HostTensor, share: &Share) -> Result<()> {
        let width = operands::scattered(sum, rows, share)?;
        let set = instruction_set(self.path);
        for_each_dtype!(Storage, sum.storage_mut(), sum => {
            let rows = typed("scatter_add", rows)?;
            let stretches = scatter::stretches(sum, rows, share, width, (STRETCH / width).max(1));
            self.threads.install(|| stretches.into_par_iter().for_each(|stretch| stretch.add(set, width)));
        });
        Ok(())
    }

    fn magnitude(&self, x: &HostTensor) -> Result<Magnitude> {
        let set = instruction_set(self.path);
        Ok(for_each_dtype!(Storage, x.storage(), elements => self.threads.install(|| {
            let parts = elements.par_chunks(STRETCH).map(|x| magnitude::magnitude(set, x));
            parts.reduce(Magnitude::default, Magnitude::merge)
        })))
    }

    fn channels(&self, x: &HostTensor, amax: &mut [f32], sums: &mut [f64]) -> Result<()> {
        operands::channels(x, amax.len(), sums.len())?;
        let set = instruction_set(self.path);
        for_each_dtype!(Storage, x.storage(), elements => {
            self.threads.install(|| channels::channels(set, elements, amax, sums));
        });
        Ok(())
    }

    fn gram(&self, x: &HostTensor, together: usize, sums: &mut [f32]) -> Result<()> {
        let columns = operands::gram(x, together, sums.len())?;
        let add = Addition { path: self.path, columns, together, scratch: &self.scratch };
        self.threads.install(|| match x.dtype() {
            DType::F32 => add.of::<f32>(typed("gram", x)?, sums),
            DType::BF16 => add.of::<half::bf16>(typed("gram", x)?, sums),
            _ => add.of::<half::f16>(typed("gram", x)?, sums),
        })
    }

    fn losses(&self, prediction: Prediction<'_, HostTensor>, targets: &[u32]) -> Result<Vec<f64>> {
        match prediction.hidden.dtype() {
            DType::F32 => self.losses_of::<f32>(prediction, targets),
            DType::BF16 => self.losses_of::<half::bf16>(prediction, targets),
            _ => self.losses_of::<half::f16>(prediction, targets),
        }
    }

    fn compare(
        &self,
        reference: Prediction<'_, HostTensor>,
        candidate: Prediction<'_, HostTensor>,
        targets: &[u32],
    ) -> Result<Vec<RowScore>> {
        match reference.hidden.dtype() {
            DType::F32 => self.compare_of::<f32>([reference, candidate], targets),
            DType::BF16 => self.compare_of::<half::bf16>([reference, candidate], targets),
            _ => self.compare_of::<half::f16>([reference, candidate], targets),
        }
    }
}
