//! What calibration learnt: the largest magnitude of every linear input and of keys and values.

use std::collections::BTreeMap;

use crate::network::CacheSide;
use crate::ops::Magnitude;

/// Largest magnitudes, in the model's own type and therefore exact.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    /// By module index of the linear that reads the activation.
    pub inputs: BTreeMap<usize, Magnitude>,
    /// Keys after rotation, by decoder layer.
    pub keys: BTreeMap<usize, Magnitude>,
    /// Values, by decoder layer.
    pub values: BTreeMap<usize, Magnitude>,
}

impl Statistics {
    /// Adds one batch's view of a linear input.
    pub fn see_input(&mut self, module: usize, seen: Magnitude) {
        merge(&mut self.inputs, module, seen);
    }

    /// Adds one batch's view of keys or values.
    pub fn see_cache(&mut self, layer: usize, side: CacheSide, seen: Magnitude) {
        match side {
            CacheSide::Key => merge(&mut self.keys, layer, seen),
            CacheSide::Value => merge(&mut self.values, layer, seen),
        }
    }
}

/// A maximum does not depend on the order of batches.
fn merge(map: &mut BTreeMap<usize, Magnitude>, key: usize, seen: Magnitude) {
    let known = map.entry(key).or_default();
    *known = known.merge(seen);
}
