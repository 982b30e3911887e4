//! Which looks at a layer a recipe needs, and what an engine would do to its activations in them.

use std::collections::BTreeMap;

use qlaunch_shared::Result;
use qlaunch_shared::assign::{Amax, Assignment, LinearNumerics, Needs, Smoothing};
use qlaunch_shared::model::{Model, ModuleRole};

use crate::calibrate::Statistics;
use crate::evaluate::{Branch, ServedInput, ServedNumerics};
use crate::export::{Finished, cache_rounding, input_amaxes};
use crate::quantize::LinearWork;
use crate::tensor::host::HostTensor;

/// What a batch goes through a layer for.
#[derive(Debug)]
pub(super) enum Look {
    /// Magnitudes, and all sums over unrounded inputs.
    First,
    /// Sums over inputs as their quantizers leave them, whose scales the first look told.
    Rounded(ServedNumerics),
    /// What the next layer sees behind the quantized one.
    Behind(ServedNumerics),
}

/// Whether sums over a linear's rounded input have to wait for a second look.
pub(super) fn waits(assignment: &Assignment, module: usize) -> bool {
    let Some(linear) = assignment.linear(module) else { return false };
    let calibrated = linear.input.is_some_and(|input| input.amax == Amax::Calibrated);
    calibrated && Needs::of(&assignment.calibration, linear).rounded_gram
}

/// The quantized linears of a layer, or with `None` those that stand outside of layers.
pub(super) fn linears_of<'a>(
    assignment: &'a Assignment,
    model: &'a Model,
    layer: Option<usize>,
) -> impl Iterator<Item = &'a LinearNumerics> + Clone {
    assignment.linears.iter().filter(move |linear| model.modules[linear.module].layer == layer)
}

/// What quantizers do to inputs by scales that need no calibration.
pub(super) fn known_beforehand(assignment: &Assignment) -> ServedNumerics {
    let known = assignment.linears.iter().filter_map(|linear| {
        let input = linear.input?;
        let amax = match input.amax {
            Amax::Calibrated => return None,
            Amax::Constant(amax) => amax,
            Amax::Unit => input.format.reach().unwrap_or(0.0),
            Amax::Dynamic => 0.0,
        };
        Some((linear.module, ServedInput { factors: None, rounding: Some((input.format, amax)) }))
    });
    ServedNumerics { inputs: known.collect(), ..ServedNumerics::default() }
}

/// What quantizers do to the calibrated inputs of a layer.
///
/// # Errors
/// An activation was not finite.
pub(super) fn known_of_layer(
    assignment: &Assignment,
    statistics: &Statistics,
    model: &Model,
    layer: Option<usize>,
) -> Result<ServedNumerics> {
    let linears = linears_of(assignment, model, layer);
    let amaxes = input_amaxes(linears.clone(), statistics, model)?;
    let inputs = linears.filter_map(|linear| {
        let rounding = (linear.input?.format, *amaxes.get(&linear.module)?);
        Some((linear.module, ServedInput { factors: None, rounding: Some(rounding) }))
    });
    Ok(ServedNumerics { inputs: inputs.collect(), ..ServedNumerics::default() })
}

/// What an engine does in a finished layer, and the weights that it multiplies with there.
///
/// # Errors
/// A cache was never calibrated.
pub(super) fn served(
    assignment: &Assignment,
    statistics: &Statistics,
    model: &Model,
    (layer, finished): (usize, &Finished),
) -> Result<(ServedNumerics, BTreeMap<usize, HostTensor>)> {
    let mut numerics = ServedNumerics { head_dim: model.config.head_dim, ..ServedNumerics::default() };
    let mut weights = BTreeMap::new();
    for linear in &finished.linears {
        let module = linear.numerics.module;
        weights.insert(module, linear.served()?);
        let input = served_input(linear, model);
        if input != ServedInput::default() {
            numerics.inputs.insert(module, input);
        }
        if let Some(branch) = &linear.low_rank {
            numerics.branches.insert(module, Branch { down: branch.a.clone(), up: branch.b.clone() });
        }
    }
    if let Some(cache) = assignment.cache(layer) {
        numerics.caches.insert(layer, cache_rounding(cache, statistics, model.config.dtype)?);
    }
    Ok((numerics, weights))
}

fn served_input(linear: &LinearWork, model: &Model) -> ServedInput {
    let in_group =
        matches!(model.modules[linear.numerics.module].role, ModuleRole::Linear { group: Some(_), .. });
    // The linear before has these factors in its weight, while norms stay as they are here.
    let is_scaled = linear.numerics.smoothing == Smoothing::Folded && !in_group;
    let rounding = linear.numerics.input.map(|input| {
        let amax = match input.amax {
            Amax::Unit => input.format.reach(),
            _ => linear.input_amax,
        };
        (input.format, amax.unwrap_or(0.0))
    });
    ServedInput { factors: linear.pre_quant_scale.clone().filter(|_| !is_scaled), rounding }
}
