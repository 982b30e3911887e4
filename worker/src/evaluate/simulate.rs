//! The tap that rounds activations and caches as an engine would.

use std::sync::Arc;

use qlaunch_shared::Result;

use super::numerics::{ServedInput, ServedNumerics};
use crate::network::{CacheSide, Inputs, Tap};
use crate::ops::{Backend, Linear, Rounding};
use crate::quantize::{round_activation, scale_channels, simulate_cache};
use crate::tensor::host::for_each_dtype;

/// Simulates what an engine does to activations.
pub struct Simulator<'a> {
    numerics: &'a ServedNumerics,
}

impl<'a> Simulator<'a> {
    /// A simulator of these numerics.
    pub fn new(numerics: &'a ServedNumerics) -> Self {
        Self { numerics }
    }
}

impl<B: Backend> Tap<B> for Simulator<'_> {
    fn input(&mut self, backend: &B, readers: &[usize], x: &B::Tensor) -> Result<Inputs<B::Tensor>> {
        // Readers of one activation mostly treat it alike: it is copied and rounded once for all of them.
        let mut done: Vec<(&ServedInput, Arc<B::Tensor>)> = Vec::new();
        let mut inputs = Vec::with_capacity(readers.len());
        for module in readers {
            let Some(served) = self.numerics.inputs.get(module) else {
                inputs.push(None);
                continue;
            };
            let known = done.iter().find(|(other, _)| *other == served).map(|(_, tensor)| Arc::clone(tensor));
            let tensor = match known {
                Some(tensor) => tensor,
                None => {
                    let mut copy = x.clone();
                    change(backend, served, &mut copy)?;
                    let copy = Arc::new(copy);
                    done.push((served, Arc::clone(&copy)));
                    copy
                }
            };
            inputs.push(Some(tensor));
        }
        Ok(inputs)
    }

    fn output(&mut self, backend: &B, module: usize, x: &B::Tensor, y: &mut B::Tensor) -> Result<()> {
        let Some(branch) = self.numerics.branches.get(&module) else { return Ok(()) };
        let factors = self.numerics.inputs.get(&module).and_then(|served| served.factors.clone());
        let mut smoothed = x.clone();
        change(backend, &ServedInput { factors, rounding: None }, &mut smoothed)?;
        let (down, up) = (backend.upload(branch.down.view())?, backend.upload(branch.up.view())?);
        let narrow = backend.linear(&smoothed, Linear { weight: &down, bias: None })?;
        let more = backend.linear(&narrow, Linear { weight: &up, bias: None })?;
        backend.add(y, &more)
    }

    fn cache(&mut self, backend: &B, layer: usize, side: CacheSide, x: &mut B::Tensor) -> Result<()> {
        let Some(rounding) = self.numerics.cache(layer, side) else { return Ok(()) };
        let head_dim = self.numerics.head_dim;
        if rounding.offset.is_none() && !rounding.rotated {
            return round_activation(backend, x, head_dim, (rounding.format, rounding.amax));
        }
        backend.edit(x, &mut |tensor| {
            for_each_dtype!(Storage, tensor.storage_mut(), values => simulate_cache(values, head_dim, rounding))
        })
    }
}

/// Changes an activation in place as an engine would.
fn change<B: Backend>(backend: &B, served: &ServedInput, x: &mut B::Tensor) -> Result<()> {
    let columns = backend.shape(x).last().copied().unwrap_or(1);
    if let Some(factors) = &served.factors
        && !backend.round(x, columns, Rounding::Factors(factors))?
    {
        backend.edit(x, &mut |tensor| {
            for_each_dtype!(Storage, tensor.storage_mut(), values => scale_channels(values, factors));
            Ok(())
        })?;
    }
    match served.rounding {
        Some(rounding) => round_activation(backend, x, columns, rounding),
        None => Ok(()),
    }
}
