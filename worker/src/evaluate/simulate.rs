//! The tap that rounds activations and caches as an engine would.

use std::sync::Arc;

use qlaunch_shared::Result;

use super::checkpoint::{Served, ServedNumerics, round};
use crate::network::{CacheSide, Inputs, Tap};
use crate::ops::Backend;

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
        // Readers of one activation mostly round it alike: it is rounded once for all of them.
        let mut rounded: Vec<(Served, Arc<B::Tensor>)> = Vec::new();
        let mut inputs = Vec::with_capacity(readers.len());
        for module in readers {
            let Some(&served) = self.numerics.inputs.get(module) else {
                inputs.push(None);
                continue;
            };
            let known =
                rounded.iter().find(|(other, _)| *other == served).map(|(_, tensor)| Arc::clone(tensor));
            let tensor = match known {
                Some(tensor) => tensor,
                None => {
                    let mut copy = x.clone();
                    round(backend, served, &mut copy)?;
                    let copy = Arc::new(copy);
                    rounded.push((served, Arc::clone(&copy)));
                    copy
                }
            };
            inputs.push(Some(tensor));
        }
        Ok(inputs)
    }

    fn cache(&mut self, backend: &B, layer: usize, side: CacheSide, x: &mut B::Tensor) -> Result<()> {
        match self.numerics.cache(layer, side) {
            Some(served) => round(backend, served, x),
            None => Ok(()),
        }
    }
}
