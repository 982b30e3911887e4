//! Codes of weights and roundings of activations by a device that has kernels for them: scales are made here as the codecs
//! make them, and the bytes are the same.

use qlaunch_shared::Result;
use qlaunch_shared::numerics::Format;

use super::codec::integer::{self, Range};
use super::codec::{fp8, nf4, nvfp4};
use super::weight::{StoredBytes, activation_scale, check, floats, reach, runs, scales};
use super::{Magnitudes, fixed_scales, simulate_activation};
use crate::ops::Backend;
use crate::ops::coding::{Coded, Coder, Coding, Cut, Mx, Rounding};
use crate::tensor::host::{TensorView, for_each_dtype};

/// As [`super::quantize_weight`], by a device.
///
/// # Errors
/// As [`super::quantize_weight`], or the device fails.
pub fn quantize_weight_on(
    coder: &dyn Coder,
    weight: TensorView<'_>,
    format: Format,
    magnitudes: &Magnitudes,
) -> Result<Vec<StoredBytes>> {
    let shape = check(weight, format, magnitudes)?;
    let scales =
        for_each_dtype!(Elements, weight.elements(), elements => scales(elements, format, magnitudes));
    let cut = cut(format, shape);
    let encode = |coding: Coding<'_>| coder.encode(weight, coding);
    let under = |coded: Coded| Ok(vec![("weight", coded.codes), ("weight_scale", floats(&scales))]);
    let blocks = |coded: Coded, tensor: f32| {
        vec![("weight", coded.codes), ("weight_scale", coded.scales), ("weight_scale_2", floats(&[tensor]))]
    };
    let powers = |mx: Mx| {
        encode(Coding::Mx(mx)).map(|coded| vec![("weight", coded.codes), ("weight_scale", coded.scales)])
    };
    match format {
        Format::Fp8 => {
            let scale = fp8::scale(magnitudes.fine.first().copied().unwrap_or_default());
            let coded = encode(Coding::Fp8(scale))?;
            Ok(vec![("weight", coded.codes), ("weight_scale", floats(&[scale]))])
        }
        Format::Fp8Channel | Format::Fp8Block { .. } => under(encode(Coding::Fp8Runs(cut, &scales))?),
        Format::Int8Channel => under(encode(Coding::Int8Runs(cut, &scales))?),
        Format::Int4 { .. } => under(encode(Coding::Int4Pairs(cut, &scales))?),
        Format::Int4Fp8 { .. } => {
            let mut parts = under(encode(Coding::Int4Pairs(cut, &scales))?)?;
            let scale = activation_scale(Format::Fp8, magnitudes.tensor);
            parts.push(("weight_scale_2", floats(&[scale])));
            Ok(parts)
        }
        Format::Nvfp4 { block, scales: kind } => {
            match fixed_scales(kind, magnitudes.tensor, block as usize) {
                Some(fixed) => {
                    let tensor = fixed.scale_2();
                    let (block, magnitudes) = (block as usize, magnitudes.fine.as_slice());
                    let (amax, ceiling) = fixed.reach();
                    let coding = Coding::Nvfp4Fixed { block, amax, ceiling, tensor, magnitudes };
                    Ok(blocks(encode(coding)?, tensor))
                }
                None => {
                    let (tensor, sixfold) = nvfp4::scales_under(magnitudes.tensor, reach(format));
                    let coding = Coding::Nvfp4 { block: block as usize, tensor, sixfold };
                    Ok(blocks(encode(coding)?, tensor))
                }
            }
        }
        Format::Mxfp4 => powers(Mx::Fp4),
        Format::Mxfp6 => powers(Mx::Fp6),
        Format::Mxfp8 => powers(Mx::Fp8),
        Format::Mxint8 => powers(Mx::Int8),
        Format::Nf4 => {
            let coded = encode(Coding::Nf4)?;
            let nested = nf4::Nested::encode(&coded.magnitudes);
            Ok(nf4::parts_of(coded.codes, nested, shape, weight.dtype()))
        }
        Format::Fp8Token | Format::Int8 => super::quantize_weight(weight, format, magnitudes),
    }
}

fn cut(format: Format, shape: [usize; 2]) -> Cut {
    let runs = runs(format, shape);
    Cut { shape, width: runs.width, height: runs.height }
}

/// Rounds an activation of rows of `columns` in place, as [`simulate_activation`] does, on the device where it can.
///
/// # Errors
/// The format is one of weights alone.
pub fn round_activation<B: Backend>(
    backend: &B,
    x: &mut B::Tensor,
    columns: usize,
    (format, amax): (Format, f32),
) -> Result<()> {
    if let Some(rounding) = rounding(format, amax)
        && backend.round(x, columns, rounding)?
    {
        return Ok(());
    }
    backend.edit(x, &mut |tensor| {
        for_each_dtype!(Storage, tensor.storage_mut(), values => simulate_activation(values, columns, format, amax))
    })
}

/// What a format of activations does, in numbers; none for formats of weights alone.
fn rounding(format: Format, amax: f32) -> Option<Rounding<'static>> {
    match format {
        Format::Fp8 => Some(Rounding::Fp8(fp8::factor(amax))),
        Format::Fp8Token => Some(Rounding::Fp8Rows),
        Format::Int8 => {
            let (factor, divisor) = integer::factors(amax, Range::INT8);
            Some(Rounding::Int8(factor, divisor))
        }
        Format::Nvfp4 { block, scales: qlaunch_shared::numerics::Nvfp4Scales::Dynamic } => {
            let (tensor, sixfold) = nvfp4::Scales::new(amax, nvfp4::REACH, block as usize).of_tensor();
            Some(Rounding::Nvfp4 { block: block as usize, tensor, sixfold })
        }
        Format::Mxfp4 => Some(Rounding::Mx(Mx::Fp4)),
        Format::Mxfp6 => Some(Rounding::Mx(Mx::Fp6)),
        Format::Mxfp8 => Some(Rounding::Mx(Mx::Fp8)),
        Format::Mxint8 => Some(Rounding::Mx(Mx::Int8)),
        _ => None,
    }
}
