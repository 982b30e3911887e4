//! A GPU as a [`Backend`]: checks operands, makes room, queues kernels and products.

use std::sync::Arc;

use cudarc::driver::CudaSlice;
use qlaunch_shared::protocol::NumericPath;
use qlaunch_shared::{Error, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::attention::Attention;
use super::device::{Argument, Device, THREADS};
use super::lanes::{Memory, Moment};
use super::likelihood::Scoring;
use super::product::{Matrix, Places, Product};
use super::tensor::{CudaTensor, one_type};
use crate::libraries;
use crate::ops::backend::{
    Activation, AttentionShape, Backend, Linear, Magnitude, Prediction, RotaryTables, RowScore,
};
use crate::ops::coding::{Coder, Rounding, Stored};
use crate::ops::cpu::{CpuBackend, CpuPath};
use crate::ops::operands;
use crate::ops::routing::{Routes, Routing, Share};
use crate::tensor::DType;
use crate::tensor::host::{HostTensor, TensorView};

/// Blocks of a kernel that walks over elements, at most.
const BLOCKS: usize = 4096;
/// Sums on a side of the square that one block of the Gram kernel has.
const GRAM_SIDE: usize = 64;

/// A GPU, and the host's threads for what is too small for it.
#[derive(Debug)]
pub struct CudaBackend {
    device: Device,
    host: CpuBackend,
    /// Threads for what is brought while others compute.
    beside: ThreadPool,
}

impl CudaBackend {
    /// Opens a GPU by number; `threads` of the host choose experts.
    ///
    /// # Errors
    /// There is no such GPU, no driver, no cuBLASLt, or the GPU is of a generation that is not served.
    pub fn open(ordinal: usize, threads: usize, places: &libraries::Places) -> Result<Self> {
        let host = CpuBackend::new(threads, NumericPath::beside_gpu())?;
        let beside =
            ThreadPoolBuilder::new().num_threads(threads).thread_name(|index| format!("bring-{index}"));
        let beside = beside
            .build()
            .map_err(|error| Error::input(format!("cannot start {threads} threads: {error}")))?;
        Ok(Self { device: Device::open(ordinal, places)?, host, beside })
    }

    pub(super) const fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn blocks(count: usize) -> (usize, usize) {
        (count.div_ceil(THREADS as usize).min(BLOCKS), 1)
    }

    /// Threads for a row of this width.
    pub(super) fn threads(width: usize) -> u32 {
        u32::try_from(width.next_multiple_of(32)).map_or(THREADS, |width| width.clamp(32, THREADS))
    }

    fn product(&self, product: Product, places: Places) -> Result<()> {
        self.device.bind()?;
        // SAFETY: every caller has checked the operands against the product's sizes and made room for the result.
        unsafe { self.device.blas.multiply(product, places) }
    }

    fn place(&self, tensor: &CudaTensor) -> u64 {
        self.device.place_of(&tensor.data)
    }

    fn numbers(&self, values: &[u32]) -> Result<CudaSlice<u32>> {
        self.device.send(values)
    }
}

/// A matrix whose rows follow each other.
fn dense(dtype: DType, columns: usize) -> Matrix {
    Matrix { dtype, stride: columns, distance: 0 }
}

impl Backend for CudaBackend {
    type Tensor = CudaTensor;
    type Moment = Moment;

    fn numeric_path(&self) -> NumericPath {
        self.device.numeric_path
    }

    fn free_memory(&self) -> Result<Option<u64>> {
        self.device.free_memory().map(Some)
    }

    fn upload(&self, view: TensorView<'_>) -> Result<CudaTensor> {
        let data = self.device.send::<u8>(&view.bytes())?.into();
        Ok(CudaTensor { shape: view.shape().to_vec(), dtype: view.dtype(), data: Arc::new(data) })
    }

    fn adopt(&self, tensor: HostTensor) -> Result<CudaTensor> {
        self.upload(tensor.view())
    }

    fn brings_ahead(&self) -> bool {
        true
    }

    fn bring(&self, tensor: HostTensor) -> Result<CudaTensor> {
        let bytes = self.device.inwards.bring(&tensor.view().bytes())?;
        let data = Arc::new(Memory::brought(bytes, &self.device.stream));
        Ok(CudaTensor { shape: tensor.shape().to_vec(), dtype: tensor.dtype(), data })
    }

    fn bring_stored(&self, weight: &Stored<'_>) -> Result<Option<CudaTensor>> {
        self.decoded(weight).map(Some)
    }

    fn brought(&self) -> Result<Moment> {
        self.device.inwards.moment()
    }

    fn computed(&self) -> Result<Moment> {
        self.device.moment()
    }

    fn wait_for(&self, moment: &Moment) -> Result<()> {
        moment.holds(&self.device.stream)
    }

    fn take(
        &self,
        tensor: &CudaTensor,
        since: &Moment,
        look: &mut dyn FnMut(TensorView<'_>) -> Result<()>,
    ) -> Result<()> {
        let bytes = self.device.outwards.take(&tensor.data, tensor.len() * tensor.dtype.size(), since)?;
        look(HostTensor::from_bytes(tensor.dtype, tensor.shape.clone(), &bytes)?.view())
    }

    fn beside(&self, work: &mut (dyn FnMut() + Send)) {
        self.beside.install(work);
    }

    fn download(&self, tensor: &CudaTensor) -> Result<HostTensor> {
        let mut bytes = self.device.fetch(&tensor.data)?;
        bytes.truncate(tensor.len() * tensor.dtype.size());
        HostTensor::from_bytes(tensor.dtype, tensor.shape.clone(), &bytes)
    }

    fn inspect(&self, tensor: &CudaTensor, look: &mut dyn FnMut(TensorView<'_>) -> Result<()>) -> Result<()> {
        look(self.download(tensor)?.view())
    }

    fn edit(
        &self,
        tensor: &mut CudaTensor,
        change: &mut dyn FnMut(&mut HostTensor) -> Result<()>,
    ) -> Result<()> {
        let mut host = self.download(tensor)?;
        change(&mut host)?;
        *tensor = self.adopt(host)?;
        Ok(())
    }

    fn shape<'a>(&self, tensor: &'a CudaTensor) -> &'a [usize] {
        &tensor.shape
    }

    fn dtype(&self, tensor: &CudaTensor) -> DType {
        tensor.dtype
    }

    fn gather(&self, table: &CudaTensor, ids: &[u32]) -> Result<CudaTensor> {
        let (rows, width) = operands::matrix("gather", table)?;
        if let Some(id) = ids.iter().find(|id| **id as usize >= rows) {
            return Err(Error::input(format!("row {id} is past the end of a table of {rows} rows"))
                .hint("the token ids and the model must use the same tokenizer"));
        }
        let out = self.device.room(table.dtype, [ids.len(), width])?;
        let numbers = self.numbers(ids)?;
        let device = &self.device;
        let arguments = [
            device.address(table),
            device.address_of(&numbers),
            Argument::U64(width as u64),
            device.address(&out),
        ];
        device.launch(("gather", table.dtype), ((ids.len(), 1), Self::threads(width)), &arguments)?;
        Ok(out)
    }

    fn linear(&self, x: &CudaTensor, layer: Linear<'_, CudaTensor>) -> Result<CudaTensor> {
        let (columns, depth) = operands::linear(x, layer.weight, layer.bias)?;
        let all: Vec<&CudaTensor> = [x, layer.weight].into_iter().chain(layer.bias).collect();
        let dtype = one_type("linear", &all)?;
        let rows = x.len() / depth;
        let mut shape = x.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = columns;
        }
        let out = self.device.room(dtype, shape)?;
        let product = Product {
            rows,
            columns,
            depth,
            x: dense(dtype, depth),
            x_exchanged: false,
            w: dense(dtype, depth),
            w_exchanged: true,
            out: dense(dtype, columns),
            batch: 1,
            biased: layer.bias.is_some(),
        };
        let bias = layer.bias.map(|bias| self.place(bias));
        let places = Places { x: self.place(x), w: self.place(layer.weight), bias, out: self.place(&out) };
        self.product(product, places)?;
        Ok(out)
    }

    fn rms_norm(&self, x: &CudaTensor, weight: &CudaTensor, eps: f32) -> Result<CudaTensor> {
        let dtype = one_type("rms_norm", &[x, weight])?;
        let width = weight.len();
        if width == 0 || !x.len().is_multiple_of(width) {
            let sizes = format!("{} elements are no whole number of runs of {width}", x.len());
            return Err(operands::misfit("rms_norm", sizes));
        }
        let out = self.device.room(dtype, x.shape.clone())?;
        let device = &self.device;
        let arguments = [
            device.address(x),
            device.address(weight),
            Argument::U64(width as u64),
            Argument::F32(eps),
            device.address(&out),
        ];
        device.launch(("rms_norm", dtype), ((x.len() / width, 1), Self::threads(width)), &arguments)?;
        Ok(out)
    }

    fn rotate(
        &self,
        x: &mut CudaTensor,
        head_dim: usize,
        tables: &RotaryTables<CudaTensor>,
        positions: &[u32],
    ) -> Result<()> {
        let half = operands::rotary(x, head_dim, tables, positions)?;
        let dtype = one_type("rotate", &[x, &tables.cosines, &tables.sines])?;
        if half == 0 || positions.is_empty() {
            return Ok(());
        }
        let device = &self.device;
        let width = x.len() / positions.len();
        let numbers = self.numbers(positions)?;
        let x = device.own(x)?;
        let arguments = [
            device.address(x),
            device.address(&tables.cosines),
            device.address(&tables.sines),
            device.address_of(&numbers),
            Argument::U64(width as u64),
            Argument::U32(head_dim as u32),
            Argument::U32(half as u32),
        ];
        device.launch(("rotate", dtype), ((positions.len(), 1), Self::threads(width / 2)), &arguments)
    }

    fn attention(
        &self,
        q: &CudaTensor,
        k: &CudaTensor,
        v: &CudaTensor,
        shape: &AttentionShape,
    ) -> Result<CudaTensor> {
        operands::attention(q, k, v, shape)?;
        let dtype = one_type("attention", &[q, k, v])?;
        let out = self.device.room(dtype, q.shape.clone())?;
        self.device.bind()?;
        Attention { device: &self.device, q, k, v, out: &out, shape: *shape }.run()?;
        Ok(out)
    }

    fn activate(&self, gate: &CudaTensor, up: &CudaTensor, activation: Activation) -> Result<CudaTensor> {
        operands::same_shape("activate", gate, up)?;
        let dtype = one_type("activate", &[gate, up])?;
        let out = self.device.room(dtype, gate.shape.clone())?;
        let kind = match activation {
            Activation::Silu => 0,
            Activation::Gelu => 1,
            Activation::GeluTanh => 2,
        };
        let device = &self.device;
        let arguments = [
            device.address(gate),
            device.address(up),
            device.address(&out),
            Argument::U64(gate.len() as u64),
            Argument::U32(kind),
        ];
        device.launch(("activate", dtype), (Self::blocks(gate.len()), THREADS), &arguments)?;
        Ok(out)
    }

    fn add(&self, sum: &mut CudaTensor, other: &CudaTensor) -> Result<()> {
        operands::same_shape("add", sum, other)?;
        let dtype = one_type("add", &[sum, other])?;
        let device = &self.device;
        let sum = device.own(sum)?;
        let count = sum.len();
        let arguments = [device.address(sum), device.address(other), Argument::U64(count as u64)];
        device.launch(("add", dtype), (Self::blocks(count), THREADS), &arguments)
    }

    fn route(&self, scores: &CudaTensor, routing: Routing) -> Result<Routes> {
        self.host.route(&self.download(scores)?, routing)
    }

    fn scatter_add(&self, sum: &mut CudaTensor, rows: &CudaTensor, share: &Share) -> Result<()> {
        let width = operands::scattered(sum, rows, share)?;
        let dtype = one_type("scatter_add", &[sum, rows])?;
        let device = &self.device;
        let (tokens, weights) = (self.numbers(&share.tokens)?, device.send(&share.weights)?);
        let sum = device.own(sum)?;
        let arguments = [
            device.address(sum),
            device.address(rows),
            device.address_of(&tokens),
            device.address_of(&weights),
            Argument::U64(width as u64),
        ];
        device.launch(("scatter_add", dtype), ((share.tokens.len(), 1), Self::threads(width)), &arguments)
    }

    fn magnitude(&self, x: &CudaTensor) -> Result<Magnitude> {
        self.largest(x)
    }

    fn channels(&self, x: &CudaTensor, amax: &mut [f32], sums: &mut [f64]) -> Result<()> {
        operands::channels(x, amax.len(), sums.len())?;
        self.largest_of_channels(x, amax, sums)
    }

    fn gram(&self, x: &CudaTensor, together: usize, sums: &mut [f32]) -> Result<()> {
        let columns = operands::gram(x, together, sums.len())?;
        let device = &self.device;
        let on_device = device.send(sums)?;
        let (rows, sides) = (x.len() / columns, columns.div_ceil(GRAM_SIDE));
        let sizes = [Argument::U64(rows as u64), Argument::U64(columns as u64)];
        let arguments = [device.address(x), sizes[0], sizes[1], device.address_of(&on_device)];
        device.launch(("gram", x.dtype), ((sides, sides), THREADS), &arguments)?;
        device.fetch_into(&on_device, sums)
    }

    fn round(&self, x: &mut CudaTensor, columns: usize, rounding: Rounding<'_>) -> Result<bool> {
        self.rounded(x, columns, rounding).map(|()| true)
    }

    fn coder(&self) -> Option<&dyn Coder> {
        Some(self)
    }

    fn losses(&self, prediction: Prediction<'_, CudaTensor>, targets: &[u32]) -> Result<Vec<f64>> {
        check_prediction(&prediction, targets)?;
        self.device.bind()?;
        Scoring { device: &self.device, targets }.losses(prediction)
    }

    fn compare(
        &self,
        reference: Prediction<'_, CudaTensor>,
        candidate: Prediction<'_, CudaTensor>,
        targets: &[u32],
    ) -> Result<Vec<RowScore>> {
        check_prediction(&reference, targets)?;
        check_prediction(&candidate, targets)?;
        operands::same_shape("compare", reference.head, candidate.head)?;
        one_type("compare", &[reference.head, candidate.head])?;
        self.device.bind()?;
        Scoring { device: &self.device, targets }.compare([reference, candidate])
    }
}

fn check_prediction(prediction: &Prediction<'_, CudaTensor>, targets: &[u32]) -> Result<()> {
    let (vocabulary, depth) = operands::linear(prediction.hidden, prediction.head, None)?;
    one_type("losses", &[prediction.hidden, prediction.head])?;
    operands::targets(prediction.hidden.len() / depth, vocabulary, targets)
}
