//! One rank's share of a forward pass: hidden states come from the rank before and go to the one behind.

use std::ops::Range;

use qlaunch_shared::model::Model;
use qlaunch_shared::{Error, Result};

use super::blocks::blocks;
use crate::comm::{Communicator, Single, Tag};
use crate::ops::Backend;
use crate::tensor::DType;
use crate::tensor::host::HostTensor;

/// A rank's share of a model.
#[derive(Clone)]
pub struct Stage<'a> {
    /// All ranks.
    pub comm: &'a dyn Communicator,
    /// The decoder layers of this one.
    pub layers: Range<usize>,
}

impl<'a> Stage<'a> {
    /// The share of the rank that `comm` is; with `scored`, every token also goes through the output head.
    ///
    /// # Errors
    /// There are more ranks than layers.
    pub fn of(comm: &'a dyn Communicator, model: &Model, scored: bool) -> Result<Self> {
        let layers = blocks(model, comm.size(), scored)?.swap_remove(comm.rank());
        Ok(Self { comm, layers })
    }

    /// All of a model.
    pub fn whole(model: &Model) -> Self {
        Self { comm: &Single, layers: 0..model.config.layers }
    }

    /// Whether it embeds tokens.
    pub fn is_first(&self) -> bool {
        self.comm.rank() == 0
    }

    /// Whether it ends with the final norm, and owns the output head.
    pub fn is_last(&self) -> bool {
        self.comm.rank() + 1 == self.comm.size()
    }

    /// Takes the next hidden states from the stage before.
    pub(super) fn receive<B: Backend>(&self, backend: &B) -> Result<B::Tensor> {
        let message = self.comm.recv(self.comm.rank() - 1, Tag::HIDDEN)?;
        backend.adopt(decode(&message)?)
    }

    /// Hands hidden states to the stage behind, as they are at a moment.
    pub(super) fn pass_on<B: Backend>(
        &self,
        backend: &B,
        hidden: &B::Tensor,
        since: &B::Moment,
    ) -> Result<()> {
        let mut message = Vec::new();
        backend.take(hidden, since, &mut |view| {
            message = encode(view.dtype(), view.shape(), &view.bytes());
            Ok(())
        })?;
        self.comm.send(self.comm.rank() + 1, Tag::HIDDEN, message)
    }
}

/// A tensor as a message: type, number of sides, sides, elements.
fn encode(dtype: DType, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(2 + 8 * shape.len() + bytes.len());
    message.extend([code(dtype), shape.len() as u8]);
    message.extend(shape.iter().flat_map(|&side| (side as u64).to_le_bytes()));
    message.extend(bytes);
    message
}

fn decode(message: &[u8]) -> Result<HostTensor> {
    let torn = || Error::bug("hidden states of another rank are torn");
    let (&[code, sides], rest) = message.split_first_chunk::<2>().ok_or_else(torn)?;
    let (shape, bytes) = rest.split_at_checked(8 * usize::from(sides)).ok_or_else(torn)?;
    let shape: Vec<usize> =
        shape.as_chunks::<8>().0.iter().map(|side| u64::from_le_bytes(*side) as usize).collect();
    let dtype = [DType::F32, DType::BF16, DType::F16].into_iter().find(|&dtype| self::code(dtype) == code);
    HostTensor::from_bytes(dtype.ok_or_else(torn)?, shape, bytes)
}

fn code(dtype: DType) -> u8 {
    match dtype {
        DType::F32 => 0,
        DType::BF16 => 1,
        DType::F16 => 2,
        _ => u8::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_states_survive_the_way_to_another_rank() {
        let wide =
            HostTensor::new([2, 3], vec![1.0f32, -2.5, f32::MIN_POSITIVE, f32::INFINITY, 0.1, -0.0]).unwrap();
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let tensor = wide.view().cast(dtype).unwrap();
            let message = encode(dtype, tensor.shape(), &tensor.view().to_bytes());
            assert_eq!(decode(&message).unwrap(), tensor);
            for cut in 0..message.len() {
                assert!(decode(&message[..cut]).is_err(), "{cut} of {} bytes", message.len());
            }
        }
    }
}
