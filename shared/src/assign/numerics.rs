//! From the quantizers of one module to its numerics, and what has no codec.

use super::assignment::{ActivationNumerics, Amax, CacheNumerics, LinearNumerics, Smoothing};
use super::quantizers::{Quantizer, Slot};
use crate::model::Module;
use crate::numerics::{Bias, BiasMethod, Format, Nvfp4Scales, QuantizerAttributes, Scaling, Side};
use crate::{Error, Result};

pub(super) fn unsupported(quantizer: &Quantizer, why: &str) -> Error {
    Error::input(format!("the recipe asks for something that this version cannot do: {why}"))
        .key(quantizer.name.as_str())
        .hint("switch it off in the recipe with `enable: false`")
}

/// The numerics of a linear of `[rows, columns]`, `None` where it is left as it is.
pub(super) fn linear(
    module: usize,
    name: &str,
    own: &[&Quantizer],
    [rows, columns]: [usize; 2],
) -> Result<Option<LinearNumerics>> {
    let in_slot = |slot| own.iter().find(|quantizer| quantizer.slot == slot);
    if let Some(output) = in_slot(Slot::Output) {
        return Err(unsupported(output, "outputs of linears cannot be quantized"));
    }
    let Some(weight) = in_slot(Slot::Weight) else {
        return match in_slot(Slot::Input) {
            Some(input) => Err(unsupported(input, "an input cannot be quantized without its weight")),
            None => Ok(None),
        };
    };
    let input = in_slot(Slot::Input).map(|quantizer| activation(quantizer)).transpose()?;
    let format = under(format_of(weight, Side::Weight)?, input);
    let has_offset =
        |quantizer: &QuantizerAttributes| quantizer.bias.value().is_some() || quantizer.is_rotated();
    if let Some(odd) = own.iter().find(|quantizer| quantizer.attributes.iter().any(has_offset)) {
        return Err(unsupported(odd, "offsets and rotations outside the KV cache"));
    }
    if let Some(why) = format.misfit(rows, columns) {
        return Err(Error::input(why)
            .key(name)
            .hint("leave this module out with an entry `{quantizer_name: …, enable: false}`"));
    }
    let linear = LinearNumerics {
        module,
        name: name.to_owned(),
        weight: format,
        input,
        smoothing: Smoothing::None,
        low_rank: None,
        shared: None,
    };
    if linear.algorithm().name().is_none() {
        let input = linear.input.map_or("unquantized", |input| input.format.name());
        return Err(unsupported(weight, &format!("{format} weights with {input} activations")));
    }
    Ok(Some(linear))
}

/// NVFP4 weights that meet FP8 activations are scaled for that (modelopt.md §3.5, W4A8_NVFP4_FP8).
fn under(weight: Format, input: Option<ActivationNumerics>) -> Format {
    match (weight, input.map(|input| input.format)) {
        (Format::Nvfp4 { block, scales: Nvfp4Scales::Dynamic }, Some(Format::Fp8)) => {
            Format::Nvfp4 { block, scales: Nvfp4Scales::UnderFp8 }
        }
        _ => weight,
    }
}

/// The numerics of an attention's KV cache, `None` where it is left as it is.
pub(super) fn cache(part: &Module, own: &[&Quantizer]) -> Result<Option<CacheNumerics>> {
    if let Some(other) = own.iter().find(|q| matches!(q.slot, Slot::Query | Slot::Probability)) {
        return Err(unsupported(other, "queries and attention probabilities cannot be quantized"));
    }
    let side = |slot| own.iter().find(|q| q.slot == slot).map(|q| activation(q)).transpose();
    match (side(Slot::Key)?, side(Slot::Value)?, part.layer) {
        (None, None, _) => Ok(None),
        (Some(_), Some(value), _) if value.rotated => {
            let odd = own.iter().find(|q| q.slot == Slot::Value).unwrap_or(&own[0]);
            Err(unsupported(odd, "values cannot be rotated: nothing turns the attention's output back"))
        }
        (Some(key), Some(value), Some(layer))
            if key.format == value.format
                && key.offset.is_some() == value.offset.is_some()
                && matches!(key.format, Format::Fp8 | Format::NVFP4) =>
        {
            let rotated_query = key.rotated;
            Ok(Some(CacheNumerics { layer, name: part.name.clone(), key, value, rotated_query }))
        }
        _ => {
            Err(unsupported(own[0], "keys and values must both be FP8 or NVFP4, or both be left as they are"))
        }
    }
}

/// The one format of a quantizer.
fn format_of(quantizer: &Quantizer, side: Side) -> Result<Format> {
    // ModelOpt's algorithms fail on any other too: nothing in a recipe tells them how to read a histogram.
    let is_max =
        |one: &QuantizerAttributes| one.calibrator.as_ref().is_none_or(|name| name.as_str() == Some("max"));
    if !quantizer.attributes.iter().all(is_max) {
        return Err(unsupported(quantizer, "a `calibrator` other than `max`"));
    }
    Format::of_sequence(&quantizer.attributes, side).ok_or_else(|| {
        let all: Vec<String> = quantizer.attributes.iter().map(QuantizerAttributes::summary).collect();
        unsupported(quantizer, &format!("no codec for {}", all.join(", then ")))
    })
}

fn activation(quantizer: &Quantizer) -> Result<ActivationNumerics> {
    let format = format_of(quantizer, Side::Activation)?;
    let [one] = &quantizer.attributes[..] else {
        return Err(unsupported(quantizer, "activations that are quantized twice"));
    };
    let amax = if format.reach().is_none() {
        Amax::Dynamic
    } else if one.use_constant_amax == Some(true) {
        Amax::Unit
    } else {
        one.constant_amax.map_or(Amax::Calibrated, |&amax| Amax::Constant(amax as f32))
    };
    if amax == Amax::Unit && !matches!(quantizer.slot, Slot::Key | Slot::Value) {
        return Err(unsupported(quantizer, "`use_constant_amax` outside the KV cache"));
    }
    let offset = one.bias.value().map(|bias| offset(quantizer, bias)).transpose()?;
    Ok(ActivationNumerics { format, amax, offset, rotated: one.is_rotated() })
}

/// How the offset of a cache is found: one for each channel of each head, over all tokens, known beforehand.
fn offset(quantizer: &Quantizer, bias: &Bias) -> Result<BiasMethod> {
    // Batches and positions are reduced; heads and channels keep an offset each.
    let is_by_channel = bias.axes.keys().eq([&-4, &-2]);
    if !is_by_channel || bias.scaling == Some(Scaling::Dynamic) {
        return Err(unsupported(
            quantizer,
            "an offset other than one for each channel of each head, `bias: {-2: null, -4: null, type: static}`",
        ));
    }
    Ok(bias.method.unwrap_or(BiasMethod::Mean))
}
