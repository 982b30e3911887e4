//! Linear layers against `f64`, on sizes that fit no tile.

use proptest::prelude::*;

use super::reference::{DTYPES, backends, product, tensor, unit, wide};
use crate::ops::{Backend, Linear};
use crate::tensor::DType;

/// Every path and type meets the exact product, up to the rounding of `k` sums in `f32` and of the result.
fn check_linear(m: usize, n: usize, k: usize, seed: u64) {
    for (backend, dtype) in
        backends(2).flat_map(|backend| DTYPES.map(|dtype| (backend.numeric_path(), dtype)))
    {
        let backend = crate::ops::CpuBackend::new(2, backend).unwrap();
        let (x, w) = (tensor(dtype, &[m, k], seed), tensor(dtype, &[n, k], seed + 1));
        let bias = tensor(dtype, &[n], seed + 2);
        let exact = product(&wide(&x), &wide(&w), k);
        let plain = backend.linear(&x, Linear { weight: &w, bias: None }).unwrap();
        let biased = backend.linear(&x, Linear { weight: &w, bias: Some(&bias) }).unwrap();
        assert_eq!((plain.shape(), plain.dtype()), ([m, n].as_slice(), dtype));
        let bias = wide(&bias);
        for (index, (exact, size)) in exact.into_iter().enumerate() {
            for (out, bias) in [(wide(&plain)[index], 0.0), (wide(&biased)[index], bias[index % n])] {
                let exact = exact + bias;
                let bound =
                    unit(dtype) * exact.abs() + (k + 2) as f64 * unit(DType::F32) * (size + bias.abs());
                // Below the smallest normal number the error is absolute.
                let bound = bound + f64::from(half::f16::MIN_POSITIVE_SUBNORMAL.to_f32_const());
                assert!((out - exact).abs() <= bound, "{dtype} {m}×{n}×{k} at {index}: {out} is not {exact}");
            }
        }
    }
}

#[test]
fn products_of_one_row_one_column_or_one_element_are_right() {
    for (m, n, k) in [(1, 1, 1), (1, 33, 5), (15, 1, 3), (2, 2, 1), (29, 65, 2)] {
        check_linear(m, n, k, 7);
    }
}

#[test]
fn products_longer_than_a_block_of_k_are_right() {
    check_linear(17, 35, 513, 1);
    check_linear(3, 5, 1025, 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn products_of_any_size_are_right(m in 1usize..60, n in 1usize..100, k in 1usize..300, seed in any::<u32>()) {
        check_linear(m, n, k, u64::from(seed));
    }
}
