//! Values of weights that are stored as codes: these come to the GPU as they are, and become values beside its computing, with the
//! bits that the codecs of the CPU give.

use std::sync::Arc;

use cudarc::driver::CudaSlice;
use qlaunch_shared::{Error, Result};

use super::backend::CudaBackend;
use super::codes::{MX_BLOCK, NF4_BLOCK, PIECE, cut, grid, lanes, misfit, name, runs, whole};
use super::device::Argument;
use super::lanes::Memory;
use super::tensor::CudaTensor;
use crate::ops::coding::{Cut, Decoding, Mx, Stored};
use crate::tensor::host::{Elements, TensorView};

impl CudaBackend {
    /// Queues what makes a weight of its codes, on the stream that brings them.
    pub(super) fn decoded(&self, weight: &Stored<'_>) -> Result<CudaTensor> {
        let (device, lane) = (self.device(), &self.device().inwards);
        let Stored { codes, decoding, dtype, shape } = weight;
        let count = shape[0] * shape[1];
        let out = lane.room(count * dtype.size())?;
        let stored = lane.bring(codes)?;
        let (from, to) = (device.address_of(&stored), device.address_of(&out));
        let launch = |kernel: &str, pieces: usize, arguments: &[Argument]| {
            device.launch_on(&lane.stream, (kernel, *dtype), grid(pieces), arguments)
        };
        let under = |kernel: &str, of: Cut, rows: usize, scales: &[f32]| {
            cut(of, count, scales.len())?;
            if codes.len() != rows * of.shape[1] {
                return Err(misfit("decoding", format!("{} codes and {of:?}", codes.len())));
            }
            let scales = self.floats(scales)?;
            let arguments: Vec<Argument> =
                [from].into_iter().chain(runs(of, rows)).chain([device.address_of(&scales), to]).collect();
            launch(kernel, rows * of.shape[1].div_ceil(PIECE), &arguments)
        };
        let expect = |bytes: usize, scales: usize, blocks: usize| match codes.len() == bytes
            && scales == blocks
        {
            true => Ok(()),
            false => Err(misfit("decoding", format!("{} bytes of codes and {scales} scales", codes.len()))),
        };
        let pieces = Argument::U64((count / PIECE) as u64);
        match decoding {
            Decoding::Fp8Runs(of, scales) => under("dequantize_fp8_runs", *of, of.shape[0], scales)?,
            Decoding::Int8Runs(of, scales) => under("dequantize_int8_runs", *of, of.shape[0], scales)?,
            Decoding::Int4Pairs(of, scales) => under("dequantize_int4_pairs", *of, of.shape[0] / 2, scales)?,
            Decoding::Nvfp4 { block, tensor, scales } => {
                expect(count / 2, scales.len(), whole(count, *block)?)?;
                let scales = lane.bring(scales)?;
                let numbers = [lanes(*block), Argument::F32(*tensor), device.address_of(&scales)];
                launch(
                    "dequantize_nvfp4",
                    count / PIECE,
                    &[from, pieces, numbers[0], numbers[1], numbers[2], to],
                )?;
            }
            Decoding::Mx(mx, scales) => {
                let bytes = if *mx == Mx::Fp4 { count / 2 } else { count };
                expect(bytes, scales.len(), whole(count, MX_BLOCK)?)?;
                let scales = lane.bring(scales)?;
                let names = ["dequantize_mxfp4", "dequantize_mxfp6", "dequantize_mxfp8", "dequantize_mxint8"];
                launch(name(*mx, names), count / PIECE, &[from, pieces, device.address_of(&scales), to])?;
            }
            Decoding::Nf4 { map, magnitudes } => {
                expect(count.div_ceil(2), magnitudes.len(), count.div_ceil(NF4_BLOCK))?;
                let (map, magnitudes) = (self.floats(map)?, self.floats(magnitudes)?);
                let tables = [device.address_of(&map), device.address_of(&magnitudes)];
                launch(
                    "dequantize_nf4",
                    count,
                    &[from, Argument::U64(count as u64), tables[0], tables[1], to],
                )?;
            }
        }
        let data = Arc::new(Memory::brought(out, &device.stream));
        Ok(CudaTensor { shape: shape.to_vec(), dtype: *dtype, data })
    }

    /// Brings numbers.
    fn floats(&self, values: &[f32]) -> Result<CudaSlice<u8>> {
        let shape = [values.len()];
        let view =
            TensorView::new(&shape, Elements::F32(values)).map_err(|error| Error::bug(error.message))?;
        self.device().inwards.bring(&view.bytes())
    }
}
