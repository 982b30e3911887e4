//! What linears that read the same input share: per-tensor scales of their weights and the scale of their input.
//!
//! Engines fuse such linears into one matrix with one scale (modelopt.md §6.2); ModelOpt's fused experts have been one
//! matrix from the start.

use std::collections::BTreeMap;

use qlaunch_shared::model::{FusedGroup, Model, QuantizerHome};
use qlaunch_shared::numerics::{Format, Grain, Nvfp4Scales};

use super::LinearWork;

/// A layer and a group of it.
type Key = (usize, FusedGroup);

/// Shares what a search has to know beforehand: of static NVFP4, the tensor magnitude that block scales are relative to.
pub fn share_before_search(linears: &mut [LinearWork], model: &Model) {
    let is_static = |linear: &LinearWork| {
        let scales = match linear.numerics.weight {
            Format::Nvfp4 { scales, .. } => scales,
            _ => return false,
        };
        matches!(scales, Nvfp4Scales::Static | Nvfp4Scales::FourOverSix)
    };
    share(linears, |linear| is_static(linear).then_some(linear.numerics.shared).flatten(), tensor);
    share(linears, |linear| expert_of_one_scale(linear, model), only_fine);
}

/// Shares what export merges.
pub fn share_for_export(linears: &mut [LinearWork]) {
    let has_tensor_scale = |linear: &LinearWork| linear.numerics.weight.has_tensor_scale();
    // A weight that is one square has one scale, and ModelOpt takes it for that of a tensor; experts are no linears to it.
    let lone = |linear: &LinearWork| {
        let is_one = linear.magnitudes.fine.len() == 1 && !has_tensor_scale(linear);
        let group = linear.numerics.shared.filter(|(_, group)| !matches!(group, FusedGroup::Expert(_)));
        is_one.then_some(group).flatten()
    };
    share(linears, lone, only_fine);
    share(linears, |linear| has_tensor_scale(linear).then_some(linear.numerics.shared).flatten(), tensor);
    share(linears, |linear| linear.input_amax.and(linear.numerics.shared), input);
}

/// Gate and up of a fused expert are one tensor in ModelOpt, and so have one scale where a tensor has one.
fn expert_of_one_scale(linear: &LinearWork, model: &Model) -> Option<Key> {
    let part = &model.modules[linear.numerics.module];
    let is_fused = matches!(part.quantizer_home(), QuantizerHome::Experts { .. });
    let one_scale = linear.numerics.weight.grain() == Grain::Tensor;
    let group = match part.role {
        qlaunch_shared::model::ModuleRole::Linear { group, .. } => group?,
        _ => return None,
    };
    (is_fused && one_scale).then_some((part.layer?, group))
}

fn tensor(linear: &mut LinearWork) -> &mut f32 {
    &mut linear.magnitudes.tensor
}

/// The one magnitude of a format with one scale.
fn only_fine(linear: &mut LinearWork) -> &mut f32 {
    if linear.magnitudes.fine.is_empty() {
        linear.magnitudes.fine.push(0.0);
    }
    &mut linear.magnitudes.fine[0]
}

fn input(linear: &mut LinearWork) -> &mut f32 {
    linear.input_amax.get_or_insert(0.0)
}

/// Gives each member of a group the largest value of all.
fn share(
    linears: &mut [LinearWork],
    key: impl Fn(&LinearWork) -> Option<Key>,
    value: impl Fn(&mut LinearWork) -> &mut f32,
) {
    let mut largest: BTreeMap<Key, f32> = BTreeMap::new();
    for linear in linears.iter_mut() {
        if let Some(key) = key(linear) {
            let own = *value(linear);
            let known = largest.entry(key).or_insert(own);
            *known = known.max(own);
        }
    }
    for linear in linears.iter_mut() {
        if let Some(&shared) = key(linear).and_then(|key| largest.get(&key)) {
            *value(linear) = shared;
        }
    }
}
