//! SVDQuant: the strongest directions of a smoothed weight go through an unquantized low-rank branch, and only the rest is
//! quantized (modelopt.md §3.8).

use qlaunch_shared::assign::Amax;
use qlaunch_shared::assign::algorithm::AwqLite;
use qlaunch_shared::{Error, Result};
use rayon::prelude::*;

use super::awq_lite::awq_lite;
use super::singular::truncate;
use crate::calibrate::Statistics;
use crate::quantize::{LinearWork, LowRank};
use crate::tensor::DType;
use crate::tensor::dtype::round_as;
use crate::tensor::host::HostTensor;
use crate::tensor::simd::{InstructionSet, dispatched};

/// Smooths the linears as `awq_lite` does, and splits a branch off each one that is planned to have one.
///
/// # Errors
/// A linear's input was not seen, or a weight is not finite.
pub(super) fn svdquant(linears: &mut [LinearWork], statistics: &Statistics) -> Result<()> {
    awq_lite(linears, &AwqLite::default(), statistics)?;
    for linear in linears.iter_mut() {
        if let Some(rank) = linear.numerics.low_rank {
            split(linear, rank)?;
            see_input(linear, statistics);
        }
    }
    Ok(())
}

/// Moves the strongest directions of a weight into a branch; both are of the model's type, and so is their difference.
fn split(linear: &mut LinearWork, rank: usize) -> Result<()> {
    let (shape @ [rows, columns], dtype) = (linear.shape(), linear.weight.dtype());
    let mut weight = linear.weight.to_f32();
    let named = |e: Error| e.key(linear.numerics.name.as_str());
    let found = truncate(&weight, shape, rank).map_err(named)?;
    let before = energy(&weight);
    let (a, b) = (narrow(&found.right, dtype), narrow(&found.left, dtype));
    subtract(&mut weight, (&b, &a), [columns, rank], Some(dtype));
    linear.remark(
        "svdquant",
        "weight_energy_left",
        format!("{:.4}", energy(&weight) / before.max(f64::MIN_POSITIVE)),
    );
    linear.weight = HostTensor::new::<f32>(shape, weight)?.view().cast(dtype)?;
    linear.low_rank = Some(LowRank {
        a: HostTensor::new::<f32>([rank, columns], a)?.view().cast(dtype)?,
        b: HostTensor::new::<f32>([rows, rank], b)?.view().cast(dtype)?,
    });
    linear.measure_again()
}

/// The input's largest magnitude is found anew, of what the factors as they are stored make of it.
fn see_input(linear: &mut LinearWork, statistics: &Statistics) {
    let channels = statistics.inputs.get(&linear.numerics.module).and_then(|seen| seen.channels.as_ref());
    let calibrated = linear.numerics.input.is_some_and(|input| input.amax == Amax::Calibrated);
    if let (Some(channels), Some(factors), true) = (channels, &linear.pre_quant_scale, calibrated) {
        let smoothed = channels.amax.iter().zip(factors).map(|(amax, factor)| amax * factor);
        let mut largest = [smoothed.fold(0f32, f32::max)];
        round_as(linear.weight.dtype(), &mut largest);
        linear.input_amax = Some(largest[0]);
    }
}

/// Gives linears that read the same input, each of which has a branch, the same factors `[columns]` and one branch for all:
/// their whole weights, one below the other, are split anew (modelopt.md §6.2, `_update_svdquant`).
///
/// # Errors
/// A member has no branch, or a weight is not finite.
pub(in crate::quantize) fn share_branch(
    linears: &mut [LinearWork],
    members: &[usize],
    factors: &[f32],
) -> Result<()> {
    let Some(rank) = members.first().and_then(|&place| linears[place].numerics.low_rank) else {
        return Ok(());
    };
    let (columns, mut whole) = (factors.len(), Vec::new());
    for &place in members {
        whole.extend(whole_under(&linears[place], factors)?);
    }
    let rows = whole.len() / columns.max(1);
    let found = truncate(&whole, [rows, columns], rank)?;
    let wide = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<f32>>();
    let (a, b) = (wide(&found.right), wide(&found.left));
    // Unlike the first split, nothing is rounded before the difference is.
    subtract(&mut whole, (&b, &a), [columns, rank], None);
    let (mut rest, mut left) = (whole.as_slice(), b.as_slice());
    for &place in members {
        let linear = &mut linears[place];
        let (shape, dtype) = (linear.shape(), linear.weight.dtype());
        let (own, others) = rest.split_at(shape[0] * columns);
        let (own_left, others_left) = left.split_at(shape[0] * rank);
        (rest, left) = (others, others_left);
        linear.weight = HostTensor::new::<f32>(shape, own.to_vec())?.view().cast(dtype)?;
        linear.low_rank = Some(LowRank {
            a: HostTensor::new::<f32>([rank, columns], a.clone())?.view().cast(dtype)?,
            b: HostTensor::new::<f32>([shape[0], rank], own_left.to_vec())?.view().cast(dtype)?,
        });
        linear.pre_quant_scale = Some(factors.to_vec());
        linear.measure_again()?;
    }
    Ok(())
}

/// A linear's weight and branch together, under other factors on the input.
fn whole_under(linear: &LinearWork, factors: &[f32]) -> Result<Vec<f32>> {
    let lacks = || Error::bug("there is no branch to be shared").key(linear.numerics.name.as_str());
    let branch = linear.low_rank.as_ref().ok_or_else(lacks)?;
    let own = linear.pre_quant_scale.as_ref().ok_or_else(lacks)?;
    let (columns, rank) = (linear.shape()[1], linear.numerics.low_rank.ok_or_else(lacks)?);
    if columns != factors.len() {
        return Err(lacks());
    }
    let mut whole = linear.weight.to_f32();
    let negative: Vec<f32> = branch.b.to_f32().iter().map(|value| -value).collect();
    subtract(&mut whole, (&negative, &branch.a.to_f32()), [columns, rank], None);
    whole.par_chunks_mut(columns.max(1)).for_each(|row| {
        let ratios = own.iter().zip(factors).map(|(own, shared)| own / shared);
        row.iter_mut().zip(ratios).for_each(|(value, ratio)| *value *= ratio);
    });
    Ok(whole)
}

/// Takes `left · right` off a weight `[_, columns]`, with `left` `[_, rank]` and `right` `[rank, columns]`; the product is
/// rounded to `dtype` before, where there is one. Sums run over the rank in order, in f32.
fn subtract(
    weight: &mut [f32],
    (left, right): (&[f32], &[f32]),
    [columns, rank]: [usize; 2],
    dtype: Option<DType>,
) {
    let set = InstructionSet::detect();
    let rows = weight.par_chunks_mut(columns.max(1)).zip(left.par_chunks(rank.max(1)));
    rows.for_each_init(
        || vec![0f32; columns],
        |product, (row, left)| {
            product.fill(0.0);
            for (factor, right) in left.iter().zip(right.chunks(columns.max(1))) {
                add_scaled(set, product, *factor, right);
            }
            if let Some(dtype) = dtype {
                round_as(dtype, product);
            }
            row.iter_mut().zip(product.iter()).for_each(|(value, product)| *value -= product);
        },
    );
}

dispatched! {
    fn add_scaled(sum: &mut [f32], factor: f32, other: &[f32]) {
        for (sum, other) in sum.iter_mut().zip(other) {
            *sum += factor * other;
        }
    }
}

fn energy(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum()
}

fn narrow(values: &[f64], dtype: DType) -> Vec<f32> {
    let mut values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    round_as(dtype, &mut values);
    values
}

#[cfg(test)]
#[path = "svdquant_tests.rs"]
mod tests;
