//! From the tensors that store a weight back to its values, as an engine computes them.

use std::borrow::Cow;

use half::{bf16, f16};
use qlaunch_shared::checkpoint::DType;
use qlaunch_shared::numerics::Format;
use qlaunch_shared::{Error, Result};

use super::codec::{fp8, integer, mx, nf4, nvfp4};
use super::weight::runs;
use crate::ops::{Cut, Decoding, Mx, Stored};
use crate::tensor::Held;
use crate::tensor::dtype::Element;
use crate::tensor::host::{HostTensor, StoredElement};

/// The bytes of one of a weight's stored tensors, by its suffix.
pub type Parts<'p, 'a> = &'p dyn Fn(&str) -> Result<&'a [u8]>;

/// Decodes a weight of `[rows, columns]` to the model's type; `parts` gives the bytes of each of its
/// [`Format::weight_parts`].
///
/// # Errors
/// A part is missing or has another length, a scale is not finite and positive, or the format does not fit the shape.
pub fn decode_weight(
    format: Format,
    shape: [usize; 2],
    parts: Parts<'_, '_>,
    dtype: DType,
) -> Result<HostTensor> {
    match dtype {
        DType::BF16 => decode::<bf16>(format, shape, parts),
        DType::F16 => decode::<f16>(format, shape, parts),
        _ => decode::<f32>(format, shape, parts),
    }
}

/// The same as it is stored, for a device that makes the values; none of a format that is made in two steps.
///
/// # Errors
/// As [`decode_weight`].
pub fn stored_weight<'a>(
    format: Format,
    shape: [usize; 2],
    parts: Parts<'_, 'a>,
    dtype: DType,
) -> Result<Option<Stored<'a>>> {
    if let Some(why) = format.misfit(shape[0], shape[1]) {
        return Err(Error::input(why));
    }
    let source = Source { format, shape, parts };
    let runs = runs(format, shape);
    let cut = Cut { shape, width: runs.width, height: runs.height };
    let scales = || source.scales().map(Cow::from);
    let powers = |mx: Mx| source.powers().map(|scales| Decoding::Mx(mx, scales));
    let decoding = match format {
        Format::Fp8 => {
            let whole = Cut { shape, width: shape[1], height: shape[0] };
            Decoding::Fp8Runs(whole, vec![source.scalar("weight_scale")?].into())
        }
        Format::Fp8Channel | Format::Fp8Block { .. } => Decoding::Fp8Runs(cut, scales()?),
        Format::Int8Channel => Decoding::Int8Runs(cut, scales()?),
        Format::Int4 { .. } => Decoding::Int4Pairs(cut, scales()?),
        Format::Nvfp4 { block, .. } => Decoding::Nvfp4 {
            block: block as usize,
            tensor: source.scalar("weight_scale_2")?,
            scales: source.part("weight_scale")?,
        },
        Format::Mxfp4 => powers(Mx::Fp4)?,
        Format::Mxfp6 => powers(Mx::Fp6)?,
        Format::Mxfp8 => powers(Mx::Fp8)?,
        Format::Mxint8 => powers(Mx::Int8)?,
        Format::Nf4 => {
            let (map, magnitudes) = source.quantiles()?.tables(shape)?;
            Decoding::Nf4 { map, magnitudes: magnitudes.into() }
        }
        Format::Int4Fp8 { .. } | Format::Fp8Token | Format::Int8 => return Ok(None),
    };
    Ok(Some(Stored { codes: source.codes()?, decoding, dtype, shape }))
}

fn decode<E: Element + StoredElement>(
    format: Format,
    shape: [usize; 2],
    parts: Parts<'_, '_>,
) -> Result<HostTensor> {
    if let Some(why) = format.misfit(shape[0], shape[1]) {
        return Err(Error::input(why));
    }
    let mut values = Held::room(shape[0] * shape[1]);
    let source = Source { format, shape, parts };
    match format {
        Format::Fp8 => fp8::decode(source.codes()?, source.scalar("weight_scale")?, &mut values)?,
        Format::Fp8Channel | Format::Fp8Block { .. } => {
            fp8::decode_scaled(source.codes()?, runs(format, shape), &source.scales()?, &mut values)?;
        }
        Format::Int8Channel => {
            integer::decode_rows(source.codes()?, shape[1], &source.scales()?, &mut values);
        }
        Format::Int4 { .. } => {
            integer::decode_row_pairs(source.codes()?, runs(format, shape), &source.scales()?, &mut values);
        }
        Format::Int4Fp8 { .. } => {
            integer::decode_row_pairs(source.codes()?, runs(format, shape), &source.scales()?, &mut values);
            // Engines multiply the INT4 values as E4M3, under a scale of their own.
            fp8::simulate(&mut values, source.scalar("weight_scale_2")? * Format::Fp8.largest());
        }
        Format::Nvfp4 { block, .. } => nvfp4::decode(
            nvfp4::Parts {
                codes: source.codes()?,
                scales: source.part("weight_scale")?,
                scale_2: source.scalar("weight_scale_2")?,
                block: block as usize,
            },
            &mut values,
        )?,
        Format::Mxfp4 => mx::decode::<E, mx::E2M1>(source.codes()?, source.powers()?, &mut values)?,
        Format::Mxfp6 => mx::decode::<E, mx::E3M2>(source.codes()?, source.powers()?, &mut values)?,
        Format::Mxfp8 => mx::decode::<E, mx::E4M3>(source.codes()?, source.powers()?, &mut values)?,
        Format::Mxint8 => mx::decode::<E, mx::Int8>(source.codes()?, source.powers()?, &mut values)?,
        Format::Nf4 => source.quantiles()?.decode(shape, &mut values)?,
        Format::Fp8Token | Format::Int8 => {
            return Err(Error::bug(format!("{format} is a format of activations, not of weights")));
        }
    }
    HostTensor::of(shape, values)
}

/// The stored parts of one weight.
struct Source<'p, 'a> {
    format: Format,
    shape: [usize; 2],
    parts: Parts<'p, 'a>,
}

impl<'a> Source<'_, 'a> {
    /// A part with as many bytes as its format has for the shape.
    fn part(&self, suffix: &str) -> Result<&'a [u8]> {
        let bytes = (self.parts)(suffix)?;
        let [rows, columns] = self.shape;
        let planned = self.format.weight_parts(rows, columns, DType::BF16);
        let Some(part) = planned.iter().find(|part| part.suffix == suffix) else {
            return Err(Error::bug(format!("{} has no `{suffix}`", self.format)));
        };
        let expected = part.shape.iter().product::<usize>() * part.dtype.size();
        if bytes.len() != expected {
            return Err(Error::input(format!(
                "`{suffix}` of {} has {} bytes, not {expected}",
                self.format,
                bytes.len()
            )));
        }
        Ok(bytes)
    }

    fn codes(&self) -> Result<&'a [u8]> {
        self.part("weight")
    }

    /// The tensors of an NF4 weight.
    fn quantiles(&self) -> Result<nf4::Stored<'a>> {
        Ok(nf4::Stored {
            codes: self.codes()?,
            absmax: (self.parts)("weight.absmax")?,
            nested_absmax: (self.parts)("weight.nested_absmax")?,
            nested_map: (self.parts)("weight.nested_quant_map")?,
            map: (self.parts)("weight.quant_map")?,
            state: (self.parts)("weight.quant_state.bitsandbytes__nf4")?,
        })
    }

    /// Exponents of powers of two; 255 is no number.
    fn powers(&self) -> Result<&'a [u8]> {
        let bytes = self.part("weight_scale")?;
        match bytes.iter().position(|byte| *byte == 255) {
            Some(at) => Err(Error::input(format!("the scale of block {at} is not a number"))),
            None => Ok(bytes),
        }
    }

    fn scales(&self) -> Result<Vec<f32>> {
        self.floats("weight_scale")
    }

    fn scalar(&self, suffix: &str) -> Result<f32> {
        self.floats(suffix)?.first().copied().ok_or_else(|| Error::input(format!("`{suffix}` is empty")))
    }

    fn floats(&self, suffix: &str) -> Result<Vec<f32>> {
        let words = self.part(suffix)?.as_chunks::<4>().0;
        let scales: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        match scales.iter().find(|scale| !(scale.is_finite() && **scale > 0.0)) {
            Some(odd) => Err(Error::input(format!("the scale {odd} is not finite and positive"))),
            None => Ok(scales),
        }
    }
}
