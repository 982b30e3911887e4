//! Factors on inputs: taken into weights when they are found, agreed on by fused groups and folded into what comes before
//! when a layer is exported (modelopt.md §4.9, §6.2).

use std::collections::BTreeMap;

use qlaunch_shared::assign::{Amax, Clipped, Smoothing, clipped};
use qlaunch_shared::model::{FusedGroup, Model, ModuleRole, Projection};
use qlaunch_shared::{Error, Result};
use rayon::prelude::*;

use super::algorithm::share_branch;
use super::{LinearWork, magnitudes};
use crate::calibrate::Channels;
use crate::tensor::dtype::round_as;
use crate::tensor::host::HostTensor;

/// Lets a linear's input be multiplied with `factors` `[columns]`, f32 and positive, and its weight do the opposite: scales
/// are found anew, the input's from the largest magnitude of each channel.
///
/// # Errors
/// The weight is no longer finite.
pub fn smooth(linear: &mut LinearWork, factors: Vec<f32>, channels: &Channels) -> Result<()> {
    let dtype = linear.weight.dtype();
    let calibrated = linear.numerics.input.is_some_and(|input| input.amax == Amax::Calibrated);
    if calibrated {
        let mut seen = channels.amax.clone();
        round_as(dtype, &mut seen);
        let largest = seen.iter().zip(&factors).map(|(amax, factor)| amax * factor).fold(0f32, f32::max);
        let mut largest = [largest];
        round_as(dtype, &mut largest);
        linear.input_amax = Some(largest[0]);
    }
    let inverse: Vec<f32> = factors.iter().map(|factor| 1.0 / factor).collect();
    change_columns(linear, |value, column| value * inverse[column])?;
    linear.measure_again()?;
    // What is stored is of the model's type, and so is what the input is multiplied with.
    let mut factors = factors;
    round_as(dtype, &mut factors);
    linear.pre_quant_scale = Some(factors);
    Ok(())
}

/// Agrees on factors in each fused group, and folds them into what computes the input wherever that was planned: norms
/// of the layer by module index, or the linear before.
///
/// # Errors
/// What the factors go into is missing, or a weight is no longer finite.
pub fn fold(
    linears: &mut [LinearWork],
    norms: &mut BTreeMap<usize, HostTensor>,
    model: &Model,
) -> Result<()> {
    fold_into_linears(linears, model)?;
    let mut groups: BTreeMap<(usize, FusedGroup), Vec<usize>> = BTreeMap::new();
    for (place, linear) in linears.iter().enumerate() {
        let part = &model.modules[linear.numerics.module];
        if let (ModuleRole::Linear { group: Some(group), .. }, Some(layer), Some(_), None) =
            (part.role, part.layer, &linear.pre_quant_scale, part.expert())
        {
            groups.entry((layer, group)).or_default().push(place);
        }
    }
    for ((layer, group), members) in groups {
        let Some(mean) = agree(linears, &members)? else { continue };
        if members.iter().all(|&place| linears[place].numerics.smoothing == Smoothing::Folded) {
            fold_into_norm(norms, model.module(&norm_of(layer, group))?, &mean)?;
        }
    }
    Ok(())
}

/// The norm that a group reads.
fn norm_of(layer: usize, group: FusedGroup) -> String {
    let name = match group {
        FusedGroup::GateUp | FusedGroup::Expert(_) => "post_attention_layernorm",
        FusedGroup::Qkv | FusedGroup::LinearInputs | FusedGroup::LinearGates => "input_layernorm",
    };
    format!("model.layers.{layer}.{name}")
}

/// Gives all members the mean of their factors, and one branch where each has one; what the mean is.
fn agree(linears: &mut [LinearWork], members: &[usize]) -> Result<Option<Vec<f32>>> {
    let Some(&first) = members.first() else { return Ok(None) };
    let dtype = linears[first].weight.dtype();
    let mut mean = vec![0f32; linears[first].shape()[1]];
    for factors in members.iter().filter_map(|&place| linears[place].pre_quant_scale.as_ref()) {
        mean.iter_mut().zip(factors).for_each(|(sum, factor)| *sum += factor);
    }
    mean.iter_mut().for_each(|sum| *sum /= members.len() as f32);
    round_as(dtype, &mut mean);
    if members.iter().all(|&place| linears[place].low_rank.is_some()) {
        share_branch(linears, members, &mean)?;
        return Ok(Some(mean));
    }
    for &place in members {
        let linear = &mut linears[place];
        let Some(own) = linear.pre_quant_scale.replace(mean.clone()).filter(|own| *own != mean) else {
            continue;
        };
        keeping_clips(linear, |linear| {
            change_columns(linear, |value, column| value * own[column] / mean[column])
        })?;
    }
    Ok(Some(mean))
}

fn fold_into_norm(norms: &mut BTreeMap<usize, HostTensor>, module: usize, factors: &[f32]) -> Result<()> {
    let norm =
        norms.get_mut(&module).ok_or_else(|| Error::bug("a norm that takes over factors was not read"))?;
    let dtype = norm.dtype();
    let values: Vec<f32> = norm.to_f32().iter().zip(factors).map(|(value, factor)| value * factor).collect();
    *norm = HostTensor::new::<f32>([values.len()], values)?.view().cast(dtype)?;
    Ok(())
}

/// Rows of `v_proj` take over the factors of `o_proj`, and those of `up_proj` the factors of `down_proj`.
fn fold_into_linears(linears: &mut [LinearWork], model: &Model) -> Result<()> {
    for place in 0..linears.len() {
        let linear = &linears[place];
        let part = &model.modules[linear.numerics.module];
        let before = match part.projection {
            Some(Projection::Output) => Projection::Value,
            Some(Projection::Down) => Projection::Up,
            _ => continue,
        };
        let (Smoothing::Folded, Some(factors)) = (linear.numerics.smoothing, linear.pre_quant_scale.clone())
        else {
            continue;
        };
        let is_before = |other: &&mut LinearWork| {
            let other = &model.modules[other.numerics.module];
            (other.layer, other.part, other.projection) == (part.layer, part.part, Some(before))
        };
        let target = linears.iter_mut().find(is_before).ok_or_else(|| {
            Error::bug("there is no quantized linear before that could take over factors")
                .key(part.name.as_str())
        })?;
        take_over(target, factors)?;
    }
    Ok(())
}

/// Multiplies the rows of a linear, and its bias, with factors.
fn take_over(linear: &mut LinearWork, factors: Vec<f32>) -> Result<()> {
    let [rows, columns] = linear.shape();
    if rows != factors.len() {
        return Err(Error::bug(format!("{rows} rows cannot take over {} factors", factors.len()))
            .key(linear.numerics.name.as_str()));
    }
    let dtype = linear.weight.dtype();
    if let Some(bias) = &mut linear.bias {
        let values: Vec<f32> =
            bias.to_f32().iter().zip(&factors).map(|(value, factor)| value * factor).collect();
        *bias = HostTensor::new::<f32>([rows], values)?.view().cast(dtype)?;
    }
    keeping_clips(linear, |linear| {
        let mut values = linear.weight.to_f32();
        let rows = values.par_chunks_mut(columns.max(1)).zip(&factors);
        rows.for_each(|(row, factor)| row.iter_mut().for_each(|value| *value *= factor));
        linear.weight = HostTensor::new::<f32>(linear.shape(), values)?.view().cast(dtype)?;
        Ok(())
    })?;
    linear.row_factors = Some(factors);
    Ok(())
}

/// Changes each element of a weight by its column, in f32, and rounds once.
fn change_columns(linear: &mut LinearWork, change: impl Fn(f32, usize) -> f32 + Sync) -> Result<()> {
    let (dtype, [_, columns]) = (linear.weight.dtype(), linear.shape());
    let mut values = linear.weight.to_f32();
    values.par_chunks_mut(columns.max(1)).for_each(|row| {
        row.iter_mut().enumerate().for_each(|(column, value)| *value = change(*value, column));
    });
    linear.weight = HostTensor::new::<f32>(linear.shape(), values)?.view().cast(dtype)?;
    Ok(())
}

/// Finds magnitudes anew after a change, and clips them as much as they were before. ModelOpt forgets clipping here.
fn keeping_clips(linear: &mut LinearWork, change: impl FnOnce(&mut LinearWork) -> Result<()>) -> Result<()> {
    let format = linear.numerics.weight;
    let natural = magnitudes(linear.weight.view(), format)?;
    let chosen = linear.magnitudes.clone();
    change(linear)?;
    linear.measure_again()?;
    let ratio = |chosen: f32, natural: f32| if natural > 0.0 { chosen / natural } else { 1.0 };
    let pairs = chosen.fine.iter().zip(&natural.fine);
    for (fine, (chosen, natural)) in linear.magnitudes.fine.iter_mut().zip(pairs) {
        *fine *= ratio(*chosen, *natural);
    }
    if clipped(format) == Some(Clipped::Tensor) {
        let mut tensor = [linear.magnitudes.tensor * ratio(chosen.tensor, natural.tensor)];
        round_as(linear.weight.dtype(), &mut tensor);
        linear.magnitudes.tensor = tensor[0];
    }
    Ok(())
}
