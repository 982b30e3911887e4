//! The one door to the codecs: a weight, a format and its magnitudes to the tensors that store it.

use qlaunch_shared::checkpoint::DType;
use qlaunch_shared::numerics::{Format, Nvfp4Scales};
use qlaunch_shared::{Error, Result};

use super::Magnitudes;
use super::codec::integer::{self, Range};
use super::codec::{Runs, Source, amax, exported, fp8, mx, nf4, nvfp4};
use super::simulate::{fine_count, fixed_scales, simulate_rows};
use crate::tensor::host::{TensorView, for_each_dtype};
use crate::tensor::room_for_bytes;

/// A tensor to be stored: suffix on the module's name, little-endian bytes.
pub type StoredBytes = (&'static str, Vec<u8>);

/// Largest magnitude of a weight, exact in its own type.
///
/// # Errors
/// An element is NaN or infinite.
pub fn weight_amax(weight: TensorView<'_>) -> Result<f32> {
    for_each_dtype!(Elements, weight.elements(), elements => amax(elements))
}

/// The magnitudes of a weight of `[rows, columns]` as max calibration finds them (modelopt.md §3.1).
///
/// # Errors
/// An element is NaN or infinite, or the format does not fit the shape.
pub fn magnitudes(weight: TensorView<'_>, format: Format) -> Result<Magnitudes> {
    let shape = matrix(weight, format)?;
    for_each_dtype!(Elements, weight.elements(), elements => magnitudes_of(elements, shape, format))
}

fn magnitudes_of<E: Source>(elements: &[E], shape: [usize; 2], format: Format) -> Result<Magnitudes> {
    let tensor = amax(elements)?;
    let none = Vec::new;
    Ok(match format {
        Format::Fp8 | Format::Int8 => Magnitudes { fine: vec![tensor], tensor: 0.0 },
        Format::Nvfp4 { scales: Nvfp4Scales::Dynamic | Nvfp4Scales::UnderFp8, .. } => {
            Magnitudes { fine: none(), tensor }
        }
        Format::Nvfp4 { .. } => Magnitudes { fine: runs(format, shape).magnitudes(elements), tensor },
        Format::Int4Fp8 { .. } => {
            let fine = runs(format, shape).magnitudes(elements);
            let tensor = rounded_amax(elements, shape, format, &fine);
            Magnitudes { fine, tensor }
        }
        _ if fine_count(format, shape) > 0 => {
            Magnitudes { fine: runs(format, shape).magnitudes(elements), tensor: 0.0 }
        }
        _ => Magnitudes::default(),
    })
}

/// The largest magnitude of what INT4 leaves of a weight, back in its own type: what the FP8 quantizer behind it sees.
fn rounded_amax<E: Source>(elements: &[E], [_, columns]: [usize; 2], format: Format, fine: &[f32]) -> f32 {
    let (Some(block), true) = (format.block(), columns > 0) else { return 0.0 };
    let across = columns.div_ceil(block);
    let mut row = vec![0f32; columns];
    let mut largest = 0f32;
    for (elements, fine) in elements.chunks(columns).zip(fine.chunks(across)) {
        crate::tensor::dtype::widen(elements, &mut row);
        simulate_rows(&mut row, columns, Format::Int4 { block: block as u32 }, fine, 0.0);
        largest = row.iter().fold(largest, |far, value| far.max(value.abs()));
    }
    // Rounding keeps the order of magnitudes, so the largest one rounded is the largest of the rounded.
    E::from_f32(largest).to_f32()
}

/// Where the finest scales of a weight stand.
pub(super) fn runs(format: Format, [_, columns]: [usize; 2]) -> Runs {
    match format {
        Format::Fp8Block { block } => Runs::squares(columns, block as usize),
        _ => match format.block() {
            Some(block) => Runs::blocks(columns, block),
            None => Runs::rows(columns),
        },
    }
}

/// Quantizes a weight of `[rows, columns]` with these magnitudes: the tensors that store it, in the order of
/// [`Format::weight_parts`].
///
/// # Errors
/// The weight is no matrix, the format does not fit it, or a value or magnitude is not finite.
pub fn quantize_weight(
    weight: TensorView<'_>,
    format: Format,
    magnitudes: &Magnitudes,
) -> Result<Vec<StoredBytes>> {
    let shape = check(weight, format, magnitudes)?;
    for_each_dtype!(Elements, weight.elements(), elements => parts(elements, shape, format, magnitudes))
}

/// The shape of a weight that a format and magnitudes fit.
pub(super) fn check(weight: TensorView<'_>, format: Format, magnitudes: &Magnitudes) -> Result<[usize; 2]> {
    let shape = matrix(weight, format)?;
    let expected = fine_count(format, shape);
    if magnitudes.fine.len() != expected {
        return Err(Error::bug(format!("{} magnitudes for {format}, not {expected}", magnitudes.fine.len())));
    }
    if let Some(odd) =
        magnitudes.fine.iter().chain([&magnitudes.tensor]).find(|m| !(m.is_finite() && **m >= 0.0))
    {
        return Err(Error::bug(format!("a scale of {format} cannot be made of the magnitude {odd}")));
    }
    Ok(shape)
}

fn matrix(weight: TensorView<'_>, format: Format) -> Result<[usize; 2]> {
    let &[rows, columns] = weight.shape() else {
        return Err(Error::input(format!("a weight of shape {:?} is no matrix", weight.shape())));
    };
    match format.misfit(rows, columns) {
        Some(why) => Err(Error::input(why).hint("exclude the module from quantization, or give it FP8")),
        None => Ok([rows, columns]),
    }
}

fn parts<E: Source>(
    elements: &[E],
    shape: [usize; 2],
    format: Format,
    magnitudes: &Magnitudes,
) -> Result<Vec<StoredBytes>> {
    let runs = runs(format, shape);
    match format {
        Format::Fp8 => fp8_parts(elements, magnitudes),
        Format::Fp8Channel | Format::Fp8Block { .. } => {
            let scales = scales(elements, format, magnitudes);
            let mut codes = room_for_bytes(elements.len());
            fp8::encode_scaled(elements, runs, &scales, &mut codes)?;
            Ok(vec![("weight", codes), ("weight_scale", floats(&scales))])
        }
        Format::Int8Channel => {
            let scales = scales(elements, format, magnitudes);
            let mut codes = room_for_bytes(elements.len());
            integer::encode_rows(elements, shape[1], &scales, &mut codes);
            Ok(vec![("weight", codes), ("weight_scale", floats(&scales))])
        }
        Format::Int4 { .. } | Format::Int4Fp8 { .. } => {
            let scales = scales(elements, format, magnitudes);
            let mut codes = room_for_bytes(elements.len() / 2);
            integer::encode_row_pairs(elements, runs, &scales, &mut codes);
            let mut parts = vec![("weight", codes), ("weight_scale", floats(&scales))];
            if matches!(format, Format::Int4Fp8 { .. }) {
                let scale = activation_scale(Format::Fp8, magnitudes.tensor);
                parts.push(("weight_scale_2", floats(&[scale])));
            }
            Ok(parts)
        }
        Format::Nvfp4 { block, scales } => {
            nvfp4_parts(elements, shape[1], (block as usize, scales), magnitudes)
        }
        Format::Mxfp4 => mx_parts::<E, mx::E2M1>(elements),
        Format::Mxfp6 => mx_parts::<E, mx::E3M2>(elements),
        Format::Mxfp8 => mx_parts::<E, mx::E4M3>(elements),
        Format::Mxint8 => mx_parts::<E, mx::Int8>(elements),
        Format::Nf4 => Ok(nf4::parts(elements, shape)),
        Format::Fp8Token | Format::Int8 => {
            Err(Error::bug(format!("{format} is a format of activations, not of weights")))
        }
    }
}

/// The f32 scales of a format: magnitude over largest code.
pub(super) fn scales<E: Source>(_: &[E], format: Format, magnitudes: &Magnitudes) -> Vec<f32> {
    // Calibrators of blocks keep their magnitudes in f32, the others in the weight's own type.
    let of_f16 = E::DTYPE == DType::F16 && format.block().is_none();
    let smallest = if of_f16 { half::f16::MIN_POSITIVE.to_f32_const() } else { f32::MIN_POSITIVE };
    let largest = match format {
        Format::Int4 { .. } | Format::Int4Fp8 { .. } => Range::INT4.largest(),
        Format::Int8Channel => Range::INT8.largest(),
        _ => format.largest(),
    };
    magnitudes.fine.iter().map(|amax| exported(*amax, largest, smallest) / largest).collect()
}

pub(super) fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn fp8_parts<E: Source>(elements: &[E], magnitudes: &Magnitudes) -> Result<Vec<StoredBytes>> {
    let encoder = fp8::Encoder::<E>::new(magnitudes.fine.first().copied().unwrap_or_default())?;
    let mut codes = room_for_bytes(elements.len());
    encoder.encode(elements, &mut codes)?;
    Ok(vec![("weight", codes), ("weight_scale", floats(&[encoder.scale()]))])
}

fn nvfp4_parts<E: Source>(
    elements: &[E],
    columns: usize,
    (block, kind): (usize, Nvfp4Scales),
    magnitudes: &Magnitudes,
) -> Result<Vec<StoredBytes>> {
    let mut codes = room_for_bytes(elements.len() / 2);
    let mut scales = vec![0u8; elements.len() / block];
    let target = nvfp4::Encoded { codes: &mut codes, scales: &mut scales };
    let scale_2 = match fixed_scales(kind, magnitudes.tensor, block) {
        Some(fixed) => {
            nvfp4::encode_fixed(elements, fixed, &magnitudes.fine, target)?;
            fixed.scale_2()
        }
        None => {
            let reach = reach(Format::Nvfp4 { block: block as u32, scales: kind });
            let encoder = nvfp4::Encoder::<E>::reaching(magnitudes.tensor, block, reach)?;
            encoder.encode(elements, columns, target)?;
            encoder.scale_2()
        }
    };
    Ok(vec![("weight", codes), ("weight_scale", scales), ("weight_scale_2", floats(&[scale_2]))])
}

/// How far a tensor reaches in units of its scale.
pub(super) fn reach(format: Format) -> f32 {
    format.reach().unwrap_or(nvfp4::REACH)
}

fn mx_parts<E: Source, T: mx::MxElement>(elements: &[E]) -> Result<Vec<StoredBytes>> {
    let mut codes = room_for_bytes(elements.len() * T::STORED_BITS / 8);
    let mut scales = vec![0u8; elements.len() / mx::BLOCK];
    mx::encode::<E, T>(elements, mx::Encoded { codes: &mut codes, scales: &mut scales })?;
    Ok(vec![("weight", codes), ("weight_scale", scales)])
}

/// The scale to be stored for an activation of this largest magnitude: `amax / reach`. An activation that was never
/// anything but zero counts as one that reaches the largest code (modelopt.md §3.1).
pub fn activation_scale(format: Format, amax: f32) -> f32 {
    let reach = format.reach().unwrap_or(1.0);
    let scale = amax / reach;
    if scale > 0.0 { scale } else { format.largest() / reach }
}

/// The scale to be stored for keys or values of this largest magnitude: `amax / 448` in every format, because engines read
/// it as that of E4M3 (modelopt.md §3.7).
pub fn cache_scale(amax: f32) -> f32 {
    activation_scale(Format::Fp8, amax)
}
