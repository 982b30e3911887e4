//! The six tensors that bitsandbytes keeps of an NF4 weight, written and read.

use qlaunch_shared::checkpoint::DType;
use qlaunch_shared::numerics::parts::nf4_state;
use qlaunch_shared::{Error, Result};
use serde::Deserialize;

use super::super::Source;
use super::codes::{Nested, decode, encode};
use super::maps::{DYNAMIC, QUANTILES};
use super::{BLOCK, NESTED_BLOCK};
use crate::tensor::dtype::Element;

/// The tensors that store a weight of `[rows, columns]`: suffix on the module's name, little-endian bytes.
pub fn parts<E: Source>(elements: &[E], shape: [usize; 2]) -> Vec<(&'static str, Vec<u8>)> {
    let mut codes = vec![0u8; elements.len().div_ceil(2)];
    let nested = Nested::encode(&encode(elements, &mut codes));
    parts_of(codes, nested, shape, E::DTYPE)
}

/// The same of codes and quantized magnitudes that are there.
pub fn parts_of(
    codes: Vec<u8>,
    nested: Nested,
    [rows, columns]: [usize; 2],
    dtype: DType,
) -> Vec<(&'static str, Vec<u8>)> {
    let state = nf4_state(rows, columns, dtype, f64::from(nested.offset));
    vec![
        ("weight", codes),
        ("weight.absmax", nested.codes),
        ("weight.nested_absmax", bytes(&nested.scales)),
        ("weight.nested_quant_map", bytes(DYNAMIC.as_slice())),
        ("weight.quant_map", bytes(&QUANTILES)),
        ("weight.quant_state.bitsandbytes__nf4", state),
    ]
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// What the JSON beside the tensors says.
#[derive(Debug, Deserialize)]
struct State {
    quant_type: String,
    blocksize: usize,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f64>,
}

/// The bytes of a stored NF4 weight.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// Two codes a byte, the first element in the high nibble.
    pub codes: &'a [u8],
    /// One code per block of 64.
    pub absmax: &'a [u8],
    /// One f32 per 256 blocks.
    pub nested_absmax: &'a [u8],
    /// 256 f32.
    pub nested_map: &'a [u8],
    /// 16 f32.
    pub map: &'a [u8],
    /// JSON.
    pub state: &'a [u8],
}

impl Stored<'_> {
    /// Writes the values of a weight of `[rows, columns]`.
    ///
    /// # Errors
    /// The tensors do not go together, or the state describes something else.
    pub fn decode<E: Element>(&self, shape: [usize; 2], target: &mut [E]) -> Result<()> {
        let (map, magnitudes) = self.tables(shape)?;
        decode(self.codes, &map, &magnitudes, target);
        Ok(())
    }

    /// What the codes of a weight of `[rows, columns]` stand for, and the magnitudes of its blocks.
    ///
    /// # Errors
    /// As [`Stored::decode`].
    pub fn tables(&self, shape: [usize; 2]) -> Result<([f32; 16], Vec<f32>)> {
        let state: State = serde_json::from_slice(self.state).map_err(|e| {
            Error::input(format!("the state of an NF4 weight is not what bitsandbytes writes: {e}"))
        })?;
        let offset = self.check(&state, shape)?;
        let mut map = [0.0; 16];
        map.copy_from_slice(&floats(self.map)[..16]);
        let nested = Nested {
            codes: self.absmax.to_vec(),
            scales: floats(self.nested_absmax),
            offset: offset as f32,
            map: floats(self.nested_map),
        };
        Ok((map, nested.decode()))
    }

    /// The offset, if everything fits.
    fn check(&self, state: &State, shape: [usize; 2]) -> Result<f64> {
        let (Some(nested_block), Some(offset)) = (state.nested_blocksize, state.nested_offset) else {
            return Err(Error::input("an NF4 weight without double quantization cannot be read yet"));
        };
        let kind = (state.quant_type.as_str(), state.blocksize, nested_block);
        if kind != ("nf4", BLOCK, NESTED_BLOCK) {
            return Err(Error::input(format!(
                "NF4 of type, block and nested block {kind:?} cannot be read yet"
            )));
        }
        let elements = shape[0] * shape[1];
        let blocks = elements.div_ceil(BLOCK);
        let fits = state.shape == shape
            && self.codes.len() == elements.div_ceil(2)
            && self.absmax.len() == blocks
            && self.nested_absmax.len() == 4 * blocks.div_ceil(NESTED_BLOCK)
            && self.nested_map.len() == 4 * 256
            && self.map.len() == 4 * 16;
        match fits {
            true => Ok(offset),
            false => {
                Err(Error::input(format!("the tensors of an NF4 weight of {shape:?} do not go together")))
            }
        }
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
}
