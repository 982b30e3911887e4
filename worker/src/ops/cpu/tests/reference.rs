//! Scalar references in `f64`, and the material that tests run on.

use crate::ops::backend::AttentionShape;
use qlaunch_shared::protocol::NumericPath;

use crate::ops::{CpuBackend, CpuPath};
use crate::tensor::DType;
use crate::tensor::host::HostTensor;

/// The types that models compute in.
pub(super) const DTYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

/// A backend for each path that this CPU has.
pub(super) fn backends(threads: usize) -> impl Iterator<Item = CpuBackend> {
    let paths = NumericPath::CPU.into_iter().filter(|path| path.available());
    paths.map(move |path| CpuBackend::new(threads, path).unwrap())
}

/// Values between -1 and 1 that depend on `seed` alone (SplitMix64).
pub(super) fn noise(seed: u64, length: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) >> 40
    };
    (0..length).map(|_| next() as f32 / (1u32 << 23) as f32 - 1.0).collect()
}

/// A tensor of noise, rounded to `dtype`.
pub(super) fn tensor(dtype: DType, shape: &[usize], seed: u64) -> HostTensor {
    let wide = HostTensor::new(shape, noise(seed, shape.iter().product())).unwrap();
    wide.view().cast(dtype).unwrap()
}

/// The values of a tensor as `f64`.
pub(super) fn wide(tensor: &HostTensor) -> Vec<f64> {
    tensor.to_f32().into_iter().map(f64::from).collect()
}

/// `value` as `dtype` would store it.
pub(super) fn rounded(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::BF16 => half::bf16::from_f32(value as f32).to_f64(),
        DType::F16 => half::f16::from_f32_const(value as f32).to_f64_const(),
        _ => f64::from(value as f32),
    }
}

/// Largest relative error of one rounding to `dtype`.
pub(super) fn unit(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 2f64.powi(-8),
        DType::F16 => 2f64.powi(-11),
        _ => 2f64.powi(-24),
    }
}

/// `x · wᵀ` and, for the error bound, `|x| · |w|ᵀ`.
pub(super) fn product(x: &[f64], w: &[f64], k: usize) -> Vec<(f64, f64)> {
    let rows = x.chunks(k).flat_map(|x| w.chunks(k).map(move |w| (x, w)));
    rows.map(|(x, w)| {
        let products = x.iter().zip(w).map(|(x, w)| x * w);
        products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + f64::abs(product)))
    })
    .collect()
}

/// Causal attention by the textbook, all in `f64`.
pub(super) fn attention(q: &[f64], k: &[f64], v: &[f64], shape: &AttentionShape) -> Vec<f64> {
    let (dim, group) = (shape.head_dim, shape.group());
    let (q_width, kv_width) = (shape.heads * dim, shape.kv_heads * dim);
    let mut out = vec![0.0; q.len()];
    for token in 0..shape.tokens() {
        let (sequence, row) = (token / shape.seq * shape.seq, token % shape.seq);
        let seen = sequence + shape.first_seen(row)..=token;
        for head in 0..shape.heads {
            let query = &q[token * q_width + head * dim..][..dim];
            let at = |key: usize| key * kv_width + head / group * dim;
            let score = |key: usize| {
                let key = &k[at(key)..][..dim];
                query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() * f64::from(shape.scale)
            };
            let largest = seen.clone().map(score).fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = seen.clone().map(|key| (score(key) - largest).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let out = &mut out[token * q_width + head * dim..][..dim];
            for (key, weight) in seen.clone().zip(weights) {
                for (out, v) in out.iter_mut().zip(&v[at(key)..][..dim]) {
                    *out += weight / sum * v;
                }
            }
        }
    }
    out
}
