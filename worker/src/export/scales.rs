//! The per-tensor magnitudes that scales are made of, shared within fused groups.

use std::collections::BTreeMap;

use qlaunch_shared::assign::{ActivationNumerics, Amax, Assignment, LinearNumerics};
use qlaunch_shared::model::FusedGroup;
use qlaunch_shared::{Error, Result};

use crate::calibrate::Statistics;
use crate::network::SourceWeights;
use crate::ops::Magnitude;
use crate::quantize::{activation_scale, weight_amax};

/// Largest magnitudes of weights; those of fused groups are found together, once.
#[derive(Default)]
pub(super) struct WeightAmax {
    groups: BTreeMap<(usize, FusedGroup), f32>,
}

impl WeightAmax {
    /// The magnitude that the tensor scale of a linear's weight is made of: its own, or its fused group's.
    pub(super) fn of(
        &mut self,
        linear: &LinearNumerics,
        assignment: &Assignment,
        weights: &SourceWeights<'_>,
    ) -> Result<f32> {
        let Some(group) = linear.shared else { return own_amax(linear, weights) };
        if let Some(&amax) = self.groups.get(&group) {
            return Ok(amax);
        }
        let mut amax = 0f32;
        for member in assignment.linears.iter().filter(|member| member.shared == Some(group)) {
            amax = amax.max(own_amax(member, weights)?);
        }
        self.groups.insert(group, amax);
        Ok(amax)
    }
}

fn own_amax(linear: &LinearNumerics, weights: &SourceWeights<'_>) -> Result<f32> {
    weights.look(linear.module, weight_amax)
}

/// The scale to be stored for a linear's input: from its own magnitude, or its fused group's.
pub(super) fn input_scale(
    linear: &LinearNumerics,
    assignment: &Assignment,
    seen: &Statistics,
) -> Result<Option<f32>> {
    let Some(input) = linear.input else { return Ok(None) };
    let members = assignment.linears.iter().filter(|member| match linear.shared {
        Some(group) => member.shared == Some(group),
        None => member.module == linear.module,
    });
    let mut amax = 0f32;
    for member in members {
        amax = amax.max(magnitude(input, seen.inputs.get(&member.module), &member.name)?);
    }
    Ok(Some(activation_scale(input.format, amax)))
}

/// The scale to be stored for keys or values, `None` where none is.
pub(super) fn cache_scale(
    numerics: ActivationNumerics,
    seen: Option<&Magnitude>,
    name: &str,
) -> Result<Option<f32>> {
    match numerics.amax {
        Amax::Unit => Ok(None),
        _ => magnitude(numerics, seen, name).map(|amax| Some(activation_scale(numerics.format, amax))),
    }
}

fn magnitude(numerics: ActivationNumerics, seen: Option<&Magnitude>, name: &str) -> Result<f32> {
    match (numerics.amax, seen) {
        (Amax::Constant(amax), _) => Ok(amax),
        (_, Some(seen)) => seen.finite().map_err(|e| {
            e.context("activations of the calibration data overflow").key(name).hint(
                "the model is broken or the data is not text of its kind: `qlaunch eval MODEL --data FILE`",
            )
        }),
        (_, None) => Err(Error::bug("an activation was never calibrated").key(name)),
    }
}
