//! The parameters that an engine builds for a linear, held against the tensors that a checkpoint stores.

use super::layers::ServedLayer;
use super::{Offered, verdict::Faults};
use crate::model::{Module, ModuleRole};
use crate::numerics::Format;

/// What an engine waits for in each linear of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Numerics of the weight in ModelOpt's layout; `None` is the model's own type.
    pub(super) weight: Option<Format>,
    /// What becomes of `input_scale`.
    pub(super) input_scale: Presence,
    /// What becomes of `pre_quant_scale`.
    pub(super) pre_quant_scale: Presence,
}

/// Whether a tensor must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Required,
    Optional,
    /// No parameter takes it.
    Unknown,
}

/// Loaders copy values into parameters of another type without a word.
pub(super) const EXACT: &str =
    "each parameter wants a tensor of its own type and shape, and other types are converted by value";
pub(super) const MISSING: &str = "each parameter must be filled";
pub(super) const NO_PARAMETER: &str = "no parameter takes the tensor";
pub(super) const UNQUANTIZED: &str = "the config leaves the layer unquantized, and its tensors are not";
pub(super) const QUANTIZED: &str = "the config quantizes the layer, and its tensors are not";
pub(super) const SHARED: &str = "linears that are fused must have one per-tensor scale";

impl Wanted {
    /// A linear as it is.
    pub(super) const PLAIN: Self =
        Self { weight: None, input_scale: Presence::Unknown, pre_quant_scale: Presence::Unknown };

    /// A weight, and activations scaled as they come or not at all.
    pub(super) const fn weight(format: Format) -> Self {
        Self { weight: Some(format), ..Self::PLAIN }
    }

    /// A weight, and activations with a stored scale.
    pub(super) const fn scaled(format: Format) -> Self {
        Self { weight: Some(format), input_scale: Presence::Required, pre_quant_scale: Presence::Unknown }
    }

    /// The same with an input scale that is read and dropped.
    pub(super) const fn dropping_input_scale(self) -> Self {
        Self { input_scale: Presence::Optional, ..self }
    }

    /// The same with factors on the input where there are any.
    pub(super) const fn smoothed(self) -> Self {
        Self { pre_quant_scale: Presence::Optional, ..self }
    }
}

/// Holds every linear of a layer against what the engine waits for.
pub(super) fn check_layer(
    offered: &Offered<'_>,
    layer: &ServedLayer<'_>,
    wanted: Wanted,
    faults: &mut Faults,
) {
    for &(module, part) in &layer.shards {
        check_linear(offered, (module, part), wanted, faults);
    }
}

fn check_linear(
    offered: &Offered<'_>,
    (module, part): (usize, &Module),
    wanted: Wanted,
    faults: &mut Faults,
) {
    let ModuleRole::Linear { rows, columns, .. } = part.role else { return };
    let dtype = offered.model.config.dtype;
    let Some(weight) = offered.find(module, "weight") else {
        return faults.add(MISSING, format!("`{}.weight` is missing", part.name));
    };
    let Some(format) = wanted.weight else {
        let alien = offered.stored(module).iter().find(|stored| !is_plain(stored.suffix));
        if !weight.dtype.is_model_dtype() {
            faults.add(UNQUANTIZED, format!("`{}.weight` is {}", part.name, weight.dtype));
        } else if let Some(alien) = alien {
            faults.add(UNQUANTIZED, format!("`{}.{}`", part.name, alien.suffix));
        }
        return;
    };
    if weight.dtype.is_model_dtype() {
        return faults.add(QUANTIZED, format!("`{}.weight` is {}", part.name, weight.dtype));
    }
    let mut parts = format.weight_parts(rows, columns, dtype);
    let scalar =
        |suffix| crate::numerics::StoredPart { suffix, dtype: crate::checkpoint::DType::F32, shape: vec![] };
    if wanted.input_scale != Presence::Unknown {
        parts.push(scalar("input_scale"));
    }
    if wanted.pre_quant_scale != Presence::Unknown {
        parts.push(crate::numerics::StoredPart { suffix: "pre_quant_scale", dtype, shape: vec![columns] });
    }
    for expected in &parts {
        let is_optional = (expected.suffix == "input_scale" && wanted.input_scale == Presence::Optional)
            || (expected.suffix == "pre_quant_scale" && wanted.pre_quant_scale == Presence::Optional);
        match offered.find(module, expected.suffix) {
            None if is_optional => {}
            None => faults.add(MISSING, format!("`{}.{}` is missing", part.name, expected.suffix)),
            Some(found) => {
                // Blocks of FP8 are squeezed by who reads them; ModelOpt squeezes a single one itself.
                let same_shape = match format {
                    Format::Fp8Block { .. } => sides(found.shape).eq(sides(&expected.shape)),
                    _ if expected.shape.is_empty() => sides(found.shape).next().is_none(),
                    _ => found.shape == expected.shape,
                };
                if found.dtype != expected.dtype || !same_shape {
                    let text = format!(
                        "`{}.{}` is {} {:?}, not {} {:?}",
                        part.name, expected.suffix, found.dtype, found.shape, expected.dtype, expected.shape
                    );
                    faults.add(EXACT, text);
                }
            }
        }
    }
    let stranger = offered
        .stored(module)
        .iter()
        .find(|stored| !is_plain(stored.suffix) && parts.iter().all(|part| part.suffix != stored.suffix));
    if let Some(stranger) = stranger {
        faults.add(NO_PARAMETER, format!("`{}.{}`", part.name, stranger.suffix));
    }
}

/// The sides of a shape that are more than one.
fn sides(shape: &[usize]) -> impl Iterator<Item = usize> {
    shape.iter().copied().filter(|&side| side != 1)
}

/// What every linear may have: its weight, its bias, the scale of a cache beside it.
fn is_plain(suffix: &str) -> bool {
    matches!(suffix, "weight" | "bias" | "k_scale" | "v_scale")
}

/// Scales per tensor that fused linears must share, where values can be read.
pub(super) fn check_shared(
    offered: &Offered<'_>,
    layer: &ServedLayer<'_>,
    suffixes: &[&str],
    faults: &mut Faults,
) {
    for members in layer.sharing() {
        for suffix in suffixes {
            let values: Vec<f32> =
                members.iter().filter_map(|name| offered.scalar(&format!("{name}.{suffix}"))).collect();
            if values.windows(2).any(|pair| pair[0] != pair[1]) {
                let names: Vec<&str> =
                    members.iter().map(|name| name.rsplit('.').next().unwrap_or(name)).collect();
                faults.add(
                    SHARED,
                    format!("`{suffix}` of {} in `{}`: {values:?}", names.join(", "), layer.name),
                );
            }
        }
    }
}
