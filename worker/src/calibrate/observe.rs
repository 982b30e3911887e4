//! The tap that fills statistics and changes nothing: calibration sees the unquantized model.

use qlaunch_shared::Result;
use qlaunch_shared::assign::{Amax, Assignment};

use super::Statistics;
use crate::network::{CacheSide, Inputs, Tap};
use crate::ops::Backend;

/// Observes what an assignment asks for, and nothing else.
pub struct Observer<'a> {
    assignment: &'a Assignment,
    /// What was seen so far.
    pub statistics: Statistics,
}

impl<'a> Observer<'a> {
    /// An observer that has seen nothing.
    pub fn new(assignment: &'a Assignment) -> Self {
        Self { assignment, statistics: Statistics::default() }
    }

    fn wants(&self, module: usize) -> bool {
        let input = self.assignment.linear(module).and_then(|linear| linear.input);
        input.is_some_and(|input| input.amax == Amax::Calibrated)
    }
}

impl<B: Backend> Tap<B> for Observer<'_> {
    fn input(&mut self, backend: &B, readers: &[usize], x: &B::Tensor) -> Result<Inputs<B::Tensor>> {
        let wanting: Vec<usize> = readers.iter().copied().filter(|&module| self.wants(module)).collect();
        if !wanting.is_empty() {
            let seen = backend.magnitude(x)?;
            for module in wanting {
                self.statistics.see_input(module, seen);
            }
        }
        Ok(vec![None; readers.len()])
    }

    fn cache(&mut self, backend: &B, layer: usize, side: CacheSide, x: &mut B::Tensor) -> Result<()> {
        let Some(cache) = self.assignment.cache(layer) else { return Ok(()) };
        let numerics = match side {
            CacheSide::Key => cache.key,
            CacheSide::Value => cache.value,
        };
        if numerics.amax == Amax::Calibrated {
            self.statistics.see_cache(layer, side, backend.magnitude(x)?);
        }
        Ok(())
    }
}
