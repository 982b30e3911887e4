//! Codes of weights by our kernels, the same bytes as the codecs of the CPU; and the rounding of activations.

use cudarc::driver::CudaSlice;
use qlaunch_shared::{Error, Result};

use super::backend::CudaBackend;
use super::device::{Argument, Device, THREADS};
use super::tensor::CudaTensor;
use crate::ops::backend::Backend;
use crate::ops::coding::{Coded, Coder, Coding, Cut, Mx, Rounding};
use crate::tensor::DType;
use crate::tensor::host::TensorView;

/// Elements that a thread takes at a time.
pub(super) const PIECE: usize = 16;
/// Elements of a block of powers of two.
pub(super) const MX_BLOCK: usize = 32;
/// Elements of a block of NF4.
pub(super) const NF4_BLOCK: usize = 64;

/// Sizes that do not go together.
pub(super) fn misfit(what: &str, sizes: String) -> Error {
    Error::bug(format!("{what} on the GPU got {sizes}, which do not go together"))
}

/// Fails unless a weight is a whole number of blocks.
pub(super) fn whole(count: usize, block: usize) -> Result<usize> {
    if block != 0 && block.is_multiple_of(PIECE) && count.is_multiple_of(block) {
        return Ok(count / block);
    }
    Err(misfit("coding", format!("{count} elements in blocks of {block}")))
}

/// Fails unless there is a scale for each run.
pub(super) fn cut(cut: Cut, elements: usize, scales: usize) -> Result<()> {
    let [rows, columns] = cut.shape;
    if rows * columns == elements && cut.count() == scales && cut.width > 0 && cut.height > 0 {
        return Ok(());
    }
    Err(misfit("coding", format!("{elements} elements, {scales} scales and {cut:?}")))
}

/// A kernel's grid for so many pieces.
pub(super) fn grid(pieces: usize) -> ((usize, usize), u32) {
    (CudaBackend::blocks(pieces), THREADS)
}

pub(super) fn runs(cut: Cut, rows: usize) -> [Argument; 5] {
    [rows, cut.shape[1], cut.width, cut.height, cut.across()].map(|size| Argument::U64(size as u64))
}

pub(super) fn lanes(block: usize) -> Argument {
    Argument::U32((block / PIECE) as u32)
}

pub(super) const fn name(mx: Mx, names: [&'static str; 4]) -> &'static str {
    match mx {
        Mx::Fp4 => names[0],
        Mx::Fp6 => names[1],
        Mx::Fp8 => names[2],
        Mx::Int8 => names[3],
    }
}

/// What is being made of a weight, on the device.
struct Queued {
    codes: CudaSlice<u8>,
    bytes: usize,
    /// A byte for each block.
    scales: Option<(CudaSlice<u8>, usize)>,
    magnitudes: Option<CudaSlice<f32>>,
}

impl Queued {
    fn fetch(self, device: &Device) -> Result<Coded> {
        let bytes = |slice: &CudaSlice<u8>, count: usize| {
            let mut bytes = device.fetch(slice)?;
            // Room for none is room for one.
            bytes.truncate(count);
            Ok(bytes)
        };
        Ok(Coded {
            codes: bytes(&self.codes, self.bytes)?,
            scales: self.scales.map_or(Ok(Vec::new()), |(scales, count)| bytes(&scales, count))?,
            magnitudes: self.magnitudes.map_or(Ok(Vec::new()), |magnitudes| device.fetch(&magnitudes))?,
        })
    }
}

/// A weight on the device, and the places of what is made of it.
struct Work<'a> {
    device: &'a Device,
    dtype: DType,
    x: Argument,
    count: usize,
}

impl Work<'_> {
    fn launch(&self, kernel: &str, pieces: usize, arguments: &[Argument]) -> Result<()> {
        self.device.launch((kernel, self.dtype), grid(pieces), arguments)
    }

    /// Codes under scales that are given.
    fn runs(&self, kernel: &str, of: Cut, rows: usize, scales: &[f32]) -> Result<CudaSlice<u8>> {
        cut(of, self.count, scales.len())?;
        let (scales, codes) = (self.device.send(scales)?, self.device.bytes(rows * of.shape[1])?);
        let places = [self.device.address_of(&scales), self.device.address_of(&codes)];
        let arguments: Vec<Argument> = [self.x].into_iter().chain(runs(of, rows)).chain(places).collect();
        self.launch(kernel, rows * of.shape[1].div_ceil(PIECE), &arguments)?;
        Ok(codes)
    }

    fn queue(&self, coding: Coding<'_>) -> Result<Queued> {
        let (device, count) = (self.device, self.count);
        let only =
            |codes: CudaSlice<u8>, bytes: usize| Ok(Queued { codes, bytes, scales: None, magnitudes: None });
        match coding {
            Coding::Fp8(scale) => {
                let codes = device.bytes(count)?;
                let arguments =
                    [self.x, Argument::U64(count as u64), Argument::F32(scale), device.address_of(&codes)];
                self.launch("quantize_fp8", count.div_ceil(PIECE), &arguments)?;
                only(codes, count)
            }
            Coding::Fp8Runs(of, scales) => {
                only(self.runs("quantize_fp8_runs", of, of.shape[0], scales)?, count)
            }
            Coding::Int8Runs(of, scales) => {
                only(self.runs("quantize_int8_runs", of, of.shape[0], scales)?, count)
            }
            Coding::Int4Pairs(of, scales) => {
                if !of.shape[0].is_multiple_of(2) {
                    return Err(misfit("coding", format!("{} rows in pairs", of.shape[0])));
                }
                only(self.runs("quantize_int4_pairs", of, of.shape[0] / 2, scales)?, count / 2)
            }
            Coding::Nvfp4 { block, tensor, sixfold } => {
                let numbers = [lanes(block), Argument::F32(tensor), Argument::F32(sixfold)];
                self.blocks("quantize_nvfp4", (block, count / 2), &numbers)
            }
            Coding::Nvfp4Fixed { block, amax, ceiling, tensor, magnitudes } => {
                if whole(count, block)? != magnitudes.len() {
                    return Err(misfit(
                        "coding",
                        format!("{count} elements and {} magnitudes", magnitudes.len()),
                    ));
                }
                let magnitudes = device.send(magnitudes)?;
                let numbers = [amax, ceiling, tensor].map(Argument::F32);
                let numbers: Vec<Argument> = [lanes(block)]
                    .into_iter()
                    .chain(numbers)
                    .chain([device.address_of(&magnitudes)])
                    .collect();
                self.blocks("quantize_nvfp4_fixed", (block, count / 2), &numbers)
            }
            Coding::Mx(mx) => {
                let names = ["quantize_mxfp4", "quantize_mxfp6", "quantize_mxfp8", "quantize_mxint8"];
                let bytes = if mx == Mx::Fp4 { count / 2 } else { count };
                self.blocks(name(mx, names), (MX_BLOCK, bytes), &[])
            }
            Coding::Nf4 => {
                let (bytes, blocks) = (count.div_ceil(2), count.div_ceil(NF4_BLOCK));
                let (codes, magnitudes) = (device.bytes(bytes)?, device.send(&vec![0f32; blocks])?);
                let places = [device.address_of(&codes), device.address_of(&magnitudes)];
                let arguments = [self.x, Argument::U64(count as u64), places[0], places[1]];
                self.launch("quantize_nf4", count.div_ceil(PIECE), &arguments)?;
                let magnitudes = Some(magnitudes).filter(|_| blocks > 0);
                Ok(Queued { codes, bytes, scales: None, magnitudes })
            }
        }
    }

    /// Codes and scales of whole blocks.
    fn blocks(&self, kernel: &str, (block, bytes): (usize, usize), numbers: &[Argument]) -> Result<Queued> {
        let blocks = whole(self.count, block)?;
        let (codes, scales) = (self.device.bytes(bytes)?, self.device.bytes(blocks)?);
        let pieces = self.count / PIECE;
        let places = [self.device.address_of(&codes), self.device.address_of(&scales)];
        let arguments: Vec<Argument> = [self.x, Argument::U64(pieces as u64)]
            .into_iter()
            .chain(numbers.iter().copied())
            .chain(places)
            .collect();
        self.launch(kernel, pieces, &arguments)?;
        Ok(Queued { codes, bytes, scales: Some((scales, blocks)), magnitudes: None })
    }
}

impl Coder for CudaBackend {
    fn encode(&self, weight: TensorView<'_>, coding: Coding<'_>) -> Result<Coded> {
        let tensor = self.upload(weight)?;
        self.work(&tensor).queue(coding)?.fetch(self.device())
    }
}

impl CudaBackend {
    fn work(&self, tensor: &CudaTensor) -> Work<'_> {
        let device = self.device();
        Work { device, dtype: tensor.dtype, x: device.address(tensor), count: tensor.len() }
    }

    /// Seconds that the kernels of a coding take for a weight which is on the device, on average over so many `runs`.
    ///
    /// # Errors
    /// As [`Coder::encode`].
    pub fn time_coding(&self, weight: TensorView<'_>, coding: Coding<'_>, runs: usize) -> Result<f64> {
        let tensor = self.upload(weight)?;
        self.device().time(runs, || self.work(&tensor).queue(coding).map(drop))
    }

    /// Seconds that a copy of a tensor on the device takes.
    ///
    /// # Errors
    /// The device fails.
    pub fn time_copy(&self, tensor: TensorView<'_>, runs: usize) -> Result<f64> {
        let tensor = self.upload(tensor)?;
        self.device().time(runs, || self.device().own(&mut tensor.clone()).map(drop))
    }

    /// Rounds an activation of rows of `columns` in place.
    pub(super) fn rounded(&self, x: &mut CudaTensor, columns: usize, rounding: Rounding<'_>) -> Result<()> {
        let count = x.len();
        if columns == 0 || !count.is_multiple_of(columns) {
            return Err(misfit("rounding", format!("{count} elements in rows of {columns}")));
        }
        let device = self.device();
        let x = device.own(x)?;
        let (place, rows) = (device.address(x), count / columns);
        let sizes = [Argument::U64(rows as u64), Argument::U64(columns as u64)];
        let launch = |kernel: &str, grid: ((usize, usize), u32), more: &[Argument]| {
            let arguments: Vec<Argument> = [place].into_iter().chain(more.iter().copied()).collect();
            device.launch((kernel, x.dtype), grid, &arguments)
        };
        let all = Argument::U64(count as u64);
        match rounding {
            Rounding::Factors(factors) => {
                if factors.len() != columns {
                    return Err(misfit(
                        "rounding",
                        format!("{columns} channels and {} factors", factors.len()),
                    ));
                }
                let factors = device.send(factors)?;
                launch("scale_channels", grid(count), &[all, sizes[1], device.address_of(&factors)])
            }
            Rounding::Fp8(factor) => {
                launch("simulate_fp8", grid(count.div_ceil(PIECE)), &[all, Argument::F32(factor)])
            }
            Rounding::Fp8Rows => {
                launch("simulate_fp8_rows", ((rows, 1), Self::threads(columns)), &[sizes[1]])
            }
            Rounding::Int8(factor, divisor) => {
                launch("simulate_int8", grid(count), &[all, Argument::F32(factor), Argument::F32(divisor)])
            }
            Rounding::Nvfp4 { block, tensor, sixfold } => {
                whole(block, PIECE)?;
                let pieces = rows * columns.div_ceil(block) * (block / PIECE);
                let numbers = [lanes(block), Argument::F32(tensor), Argument::F32(sixfold)];
                launch("simulate_nvfp4", grid(pieces), &[sizes.as_slice(), &numbers].concat())
            }
            Rounding::Mx(mx) => {
                let names = ["simulate_mxfp4", "simulate_mxfp6", "simulate_mxfp8", "simulate_mxint8"];
                launch(name(mx, names), grid(rows * columns.div_ceil(MX_BLOCK) * 2), &sizes)
            }
        }
    }
}
