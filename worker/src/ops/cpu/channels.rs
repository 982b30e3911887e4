//! Largest and summed magnitudes of each channel.

use rayon::prelude::*;

use crate::tensor::dtype::Element;
use crate::tensor::simd::{InstructionSet, dispatched};

/// Channels that one task takes.
const STRIPE: usize = 64;

/// Merges the magnitudes of `x` `[tokens, columns]` into `amax` and `sums`, both `[columns]`: token by token, so that the
/// sums do not depend on how tokens come. Runs on the rayon pool that it is called in.
pub(super) fn channels<E: Element>(set: InstructionSet, x: &[E], amax: &mut [f32], sums: &mut [f64]) {
    let columns = amax.len();
    let stripes = amax.par_chunks_mut(STRIPE).zip(sums.par_chunks_mut(STRIPE)).enumerate();
    stripes.for_each(|(stripe, (amax, sums))| {
        see(set, &x[(stripe * STRIPE).min(x.len())..], columns, amax, sums)
    });
}

dispatched! {
    fn see<E: Element>(x: &[E], columns: usize, amax: &mut [f32], sums: &mut [f64]) {
        let width = amax.len();
        for row in x.chunks(columns).filter(|row| row.len() >= width) {
            for ((x, amax), sum) in row[..width].iter().zip(amax.iter_mut()).zip(sums.iter_mut()) {
                let magnitude = x.to_f32().abs();
                *amax = amax.max(magnitude);
                *sum += f64::from(magnitude);
            }
        }
    }
}
