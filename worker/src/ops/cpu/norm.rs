//! Root-mean-square normalisation.

use crate::tensor::dtype::Element;
use crate::tensor::simd::dispatched;

/// Sums that run side by side: the order of summation is the same whatever the registers' width.
const LANES: usize = 32;

dispatched! {
    /// Normalises each run of `weight`'s length: `round(round(x / √(mean(x²) + eps)) · weight)`.
    ///
    /// The squares are summed in `f32`, in 32 interleaved chains that are then added pairwise.
    pub(super) fn rms_norm<E: Element>(x: &[E], weight: &[E], eps: f32, out: &mut [E]) {
        for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            let mean = sum_of_squares(x) / weight.len() as f32;
            let factor = 1.0 / (mean + eps).sqrt();
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                let normal = E::from_f32(x.to_f32() * factor);
                *out = E::from_f32(normal.to_f32() * weight.to_f32());
            }
        }
    }
}

#[inline(always)]
fn sum_of_squares<E: Element>(x: &[E]) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x.to_f32() * x.to_f32();
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += x.to_f32() * x.to_f32();
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}
