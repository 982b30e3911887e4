//! One weight to the tensors that store it.

use qlaunch_shared::numerics::Format;
use qlaunch_shared::{Error, Result};

use super::codec::{Source, amax, fp8, nvfp4};
use crate::tensor::host::{TensorView, for_each_dtype};

/// A tensor to be stored: suffix on the module's name, little-endian bytes.
pub type StoredBytes = (&'static str, Vec<u8>);

/// Largest magnitude of a weight, exact in its own type.
///
/// # Errors
/// An element is NaN or infinite.
pub fn weight_amax(weight: TensorView<'_>) -> Result<f32> {
    for_each_dtype!(Elements, weight.elements(), elements => amax(elements))
}

/// Quantizes a weight of `[rows, columns]` whose tensor scale is made from `amax`, its own or its fused group's.
///
/// # Errors
/// The weight is no matrix, or its rows cannot be cut into the format's blocks.
pub fn quantize_weight(weight: TensorView<'_>, format: Format, amax: f32) -> Result<Vec<StoredBytes>> {
    let &[rows, columns] = weight.shape() else {
        return Err(Error::input(format!("a weight of shape {:?} is no matrix", weight.shape())));
    };
    for_each_dtype!(Elements, weight.elements(), elements => match format {
        Format::Fp8 => fp8_parts(elements, amax),
        Format::Nvfp4 => nvfp4_parts(elements, (rows, columns), amax),
    })
}

fn fp8_parts<E: Source>(elements: &[E], amax: f32) -> Result<Vec<StoredBytes>> {
    let encoder = fp8::Encoder::<E>::new(amax)?;
    let mut codes = vec![0u8; elements.len()];
    encoder.encode(elements, &mut codes)?;
    Ok(vec![("weight", codes), ("weight_scale", encoder.scale().to_le_bytes().to_vec())])
}

fn nvfp4_parts<E: Source>(
    elements: &[E],
    (rows, columns): (usize, usize),
    amax: f32,
) -> Result<Vec<StoredBytes>> {
    let encoder = nvfp4::Encoder::<E>::new(amax, nvfp4::BLOCK)?;
    let mut codes = vec![0u8; rows * columns / 2];
    let mut scales = vec![0u8; rows * columns / nvfp4::BLOCK];
    encoder.encode(elements, columns, nvfp4::Encoded { codes: &mut codes, scales: &mut scales })?;
    Ok(vec![
        ("weight", codes),
        ("weight_scale", scales),
        ("weight_scale_2", encoder.scale_2().to_le_bytes().to_vec()),
    ])
}

/// The scale to be stored for an activation of this largest magnitude: `amax / reach`, 1 or its like for an activation
/// that was never anything but zero.
pub fn activation_scale(format: Format, amax: f32) -> f32 {
    match format {
        Format::Fp8 => fp8::scale(amax),
        Format::Nvfp4 => nvfp4::scale_2(amax),
    }
}
