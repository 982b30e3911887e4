//! The magnitudes that scales of inputs and caches are made of, from what calibration saw.

use std::collections::BTreeMap;

use qlaunch_shared::assign::{ActivationNumerics, Amax, CacheNumerics, LinearNumerics};
use qlaunch_shared::model::{Model, Projection, QuantizerHome};
use qlaunch_shared::numerics::Format;
use qlaunch_shared::{Error, Result};

use crate::calibrate::{CacheStatistics, Statistics};
use crate::ops::Magnitude;
use crate::quantize::{CacheRounding, LinearWork, cache_scale as scale_of};
use crate::tensor::DType;
use crate::tensor::host::HostTensor;

/// The largest magnitudes of the calibrated inputs of one layer's linears, by module. All experts of a layer share one for
/// what gate and up read, and one for what down reads (modelopt.md §2.3); where no expert saw a token, there is none.
///
/// # Errors
/// An activation was not finite, or was never seen.
pub fn input_amaxes<'n>(
    linears: impl Iterator<Item = &'n LinearNumerics> + Clone,
    statistics: &Statistics,
    model: &Model,
) -> Result<BTreeMap<usize, f32>> {
    let mut experts: BTreeMap<bool, Magnitude> = BTreeMap::new();
    for linear in linears.clone() {
        let seen = statistics.inputs.get(&linear.module);
        if let (Some(is_down), Some(seen)) = (of_experts(linear, model), seen) {
            let known = experts.entry(is_down).or_default();
            *known = known.merge(seen.magnitude);
        }
    }
    let mut amaxes = BTreeMap::new();
    for linear in linears.filter(|linear| linear.input.is_some_and(|input| input.amax == Amax::Calibrated)) {
        let own = statistics.inputs.get(&linear.module).map(|seen| &seen.magnitude);
        let is_down = of_experts(linear, model);
        let seen = match is_down {
            Some(is_down) => experts.get(&is_down),
            None => own,
        };
        match seen {
            Some(seen) => {
                amaxes.insert(linear.module, finite(*seen, &linear.name)?);
            }
            // No expert of the layer saw a token: what the weight itself reaches stands in (modelopt.md §4.13).
            None if is_down.is_some() => {}
            None => return Err(Error::bug("an activation was never calibrated").key(linear.name.as_str())),
        }
    }
    Ok(amaxes)
}

/// Sets the largest magnitude of each linear's input.
pub(super) fn set_input_amax(
    linears: &mut [LinearWork],
    statistics: &Statistics,
    model: &Model,
) -> Result<()> {
    let amaxes = input_amaxes(linears.iter().map(|linear| &linear.numerics), statistics, model)?;
    for linear in linears.iter_mut() {
        linear.input_amax = match linear.numerics.input.map(|input| input.amax) {
            None | Some(Amax::Dynamic | Amax::Unit) => None,
            Some(Amax::Constant(amax)) => Some(amax),
            Some(Amax::Calibrated) => amaxes.get(&linear.numerics.module).copied(),
        };
        if linear.input_amax == Some(0.0) && amaxes.contains_key(&linear.numerics.module) {
            linear.remark(
                "max",
                "zero_amax",
                "nothing but zeros was seen: its scale is that of the largest code",
            );
        }
    }
    stand_in(linears, model);
    Ok(())
}

/// Layers whose experts never saw a token take the largest magnitude of their weights.
fn stand_in(linears: &mut [LinearWork], model: &Model) {
    let amax = |linear: &LinearWork| {
        let fine = linear.magnitudes.fine.iter().copied().fold(0f32, f32::max);
        fine.max(linear.magnitudes.tensor)
    };
    let mut largest: BTreeMap<(Option<u32>, bool), f32> = BTreeMap::new();
    for linear in linears.iter() {
        if let Some(is_down) = of_experts(&linear.numerics, model) {
            let key = (model.modules[linear.numerics.module].expert(), is_down);
            let known = largest.entry(key).or_default();
            *known = known.max(amax(linear));
        }
    }
    for linear in linears.iter_mut() {
        let Some(is_down) = of_experts(&linear.numerics, model) else { continue };
        let calibrated = linear.numerics.input.is_some_and(|input| input.amax == Amax::Calibrated);
        if calibrated && linear.input_amax.is_none() {
            let key = (model.modules[linear.numerics.module].expert(), is_down);
            linear.input_amax = largest.get(&key).copied();
            linear.remark(
                "max",
                "no_tokens",
                "no expert of the layer saw a token: the weight's magnitude stands in",
            );
        }
    }
}

/// Whether a linear is a fused expert's, and then whether it is the down projection.
fn of_experts(linear: &LinearNumerics, model: &Model) -> Option<bool> {
    let part = &model.modules[linear.module];
    matches!(part.quantizer_home(), QuantizerHome::Experts { .. })
        .then(|| part.projection == Some(Projection::Down))
}

/// The scale or offset to be stored under this name for keys or values, where it is the name of one.
pub(super) fn cache_part(
    cache: &CacheNumerics,
    name: &str,
    (statistics, dtype): (&Statistics, DType),
) -> Result<Option<Vec<u8>>> {
    let part = name.rsplit('.').next().unwrap_or_default();
    let (numerics, seen) = match part {
        "k_scale" | "k_bias" => (cache.key, statistics.keys.get(&cache.layer)),
        "v_scale" | "v_bias" => (cache.value, statistics.values.get(&cache.layer)),
        _ => return Ok(None),
    };
    let (amax, offset) = cache_numbers(numerics, seen, (&cache.name, dtype))?;
    if part.ends_with("_scale") {
        return Ok(amax.map(|amax| scale_of(amax).to_le_bytes().to_vec()));
    }
    let Some(offset) = offset else { return Ok(None) };
    let offset = HostTensor::new::<f32>([offset.len()], offset)?.view().cast(dtype)?;
    Ok(Some(offset.view().to_bytes()))
}

/// How an engine rounds the keys and values of a layer.
///
/// # Errors
/// They were not finite, or never seen.
pub fn cache_rounding(
    cache: &CacheNumerics,
    statistics: &Statistics,
    dtype: DType,
) -> Result<(CacheRounding, CacheRounding)> {
    let rounding = |numerics: ActivationNumerics, seen| -> Result<CacheRounding> {
        let (amax, offset) = cache_numbers(numerics, seen, (&cache.name, dtype))?;
        // Where no scale is stored, an engine takes 1.
        let amax = amax.unwrap_or(Format::Fp8.largest());
        Ok(CacheRounding { format: numerics.format, amax, offset, rotated: numerics.rotated })
    };
    let (keys, values) = (statistics.keys.get(&cache.layer), statistics.values.get(&cache.layer));
    Ok((rounding(cache.key, keys)?, rounding(cache.value, values)?))
}

/// The largest magnitude that the scale of keys or values is made of, where one is stored, and their offset.
fn cache_numbers(
    numerics: ActivationNumerics,
    seen: Option<&CacheStatistics>,
    (name, dtype): (&str, DType),
) -> Result<(Option<f32>, Option<Vec<f32>>)> {
    let unseen = || Error::bug("a cache was never calibrated").key(name);
    let offset = match (numerics.offset, seen) {
        (None, _) => None,
        (Some(method), Some(seen)) => {
            finite(seen.magnitude, name)?;
            Some(seen.offset(method, dtype).ok_or_else(unseen)?)
        }
        (Some(_), None) => return Err(unseen()),
    };
    let amax = match (numerics.amax, seen) {
        (Amax::Unit | Amax::Dynamic, _) => None,
        (Amax::Constant(amax), _) => Some(amax),
        (Amax::Calibrated, Some(seen)) => {
            let plain = finite(seen.magnitude, name)?;
            Some(offset.as_ref().map_or(plain, |offset| seen.amax_around(offset)))
        }
        (Amax::Calibrated, None) => return Err(unseen()),
    };
    Ok((amax, offset))
}

fn finite(seen: Magnitude, name: &str) -> Result<f32> {
    seen.finite().map_err(|e| {
        e.context("activations of the calibration data overflow")
            .key(name)
            .hint("the model is broken or the data is not text of its kind: `qlaunch eval MODEL --data FILE`")
    })
}
