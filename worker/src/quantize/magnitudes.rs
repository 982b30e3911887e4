//! What the scales of a weight are made of: ModelOpt's `_amax` and `global_amax` of a weight quantizer.

use qlaunch_shared::numerics::{Format, Grain};

/// Largest magnitudes of a weight of `[rows, columns]`, in the order of the format's scales, row-major.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Magnitudes {
    /// One per scale of the finest level that calibration keeps: one per tensor, row, square or block. Empty where
    /// blocks are scaled by the values at hand: dynamic NVFP4, MX formats and NF4.
    ///
    /// Where it is one square's alone, ModelOpt's export takes the largest of a fused group, as it does with all scalars of
    /// formats other than FP8; squares of experts are cut out of fused tensors and stay their own (modelopt.md §6.2).
    pub fine: Vec<f32>,
    /// Of the whole tensor, or of all that an engine fuses with it: what a per-tensor scale on top is made of. Of INT4
    /// in FP8, the largest magnitude of the INT4 values. Zero in formats without such a scale.
    pub tensor: f32,
}

impl Magnitudes {
    /// Those of some rows of a weight whose largest magnitude is `largest`; it stands for that of the rows alone.
    #[must_use]
    pub fn of_part(self, format: Format, largest: f32) -> Self {
        match format.grain() {
            Grain::Tensor => Self { fine: vec![largest], ..self },
            _ if format.has_tensor_scale() => Self { tensor: largest, ..self },
            _ => self,
        }
    }
}
