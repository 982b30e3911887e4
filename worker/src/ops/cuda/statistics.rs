//! Magnitudes of activations: blocks of a kernel find their own, and the host puts these together in a fixed order.

use qlaunch_shared::Result;

use super::backend::CudaBackend;
use super::device::{Argument, THREADS};
use super::tensor::CudaTensor;
use crate::ops::backend::Magnitude;

/// Rows whose magnitudes one thread adds up for a channel.
const STRETCH: usize = 256;

impl CudaBackend {
    /// The largest magnitude of a tensor, and how many elements are not finite.
    pub(super) fn largest(&self, x: &CudaTensor) -> Result<Magnitude> {
        let device = self.device();
        let (blocks, _) = Self::blocks(x.len());
        if blocks == 0 {
            return Ok(Magnitude::default());
        }
        let amax = device.send(&vec![0f32; blocks])?;
        let (nans, infinities) = (device.send(&vec![0u64; blocks])?, device.send(&vec![0u64; blocks])?);
        let arguments = [
            device.address(x),
            Argument::U64(x.len() as u64),
            device.address_of(&amax),
            device.address_of(&nans),
            device.address_of(&infinities),
        ];
        device.launch(("magnitude", x.dtype), ((blocks, 1), THREADS), &arguments)?;
        let (amax, nans, infinities) =
            (device.fetch(&amax)?, device.fetch(&nans)?, device.fetch(&infinities)?);
        let parts = amax.into_iter().zip(nans).zip(infinities);
        let parts = parts.map(|((amax, nans), infinities)| Magnitude { amax, nans, infinities });
        Ok(parts.fold(Magnitude::default(), Magnitude::merge))
    }

    /// Merges the magnitudes of each channel into places that fit.
    pub(super) fn largest_of_channels(
        &self,
        x: &CudaTensor,
        amax: &mut [f32],
        sums: &mut [f64],
    ) -> Result<()> {
        let device = self.device();
        let columns = amax.len();
        let rows = x.len() / columns;
        let stretches = rows.div_ceil(STRETCH);
        if stretches == 0 {
            return Ok(());
        }
        let (most, added) =
            (device.send(&vec![0f32; stretches * columns])?, device.send(&vec![0f64; stretches * columns])?);
        let arguments = [
            device.address(x),
            Argument::U64(rows as u64),
            Argument::U64(columns as u64),
            Argument::U64(STRETCH as u64),
            device.address_of(&most),
            device.address_of(&added),
        ];
        let grid = (columns.div_ceil(THREADS as usize), stretches);
        device.launch(("channels", x.dtype), (grid, THREADS), &arguments)?;
        let (most, added) = (device.fetch(&most)?, device.fetch(&added)?);
        for (most, added) in most.chunks_exact(columns).zip(added.chunks_exact(columns)) {
            for ((amax, sum), (most, added)) in
                amax.iter_mut().zip(sums.iter_mut()).zip(most.iter().zip(added))
            {
                *amax = amax.max(*most);
                *sum += added;
            }
        }
        Ok(())
    }
}
