//! Attention against the textbook in `f64`.

use proptest::prelude::*;

use super::reference::{DTYPES, attention, backends, tensor, unit, wide};
use crate::ops::{AttentionShape, Backend, CpuBackend};
use crate::tensor::DType;

/// Tolerance: weights lie in [0, 1] and are rounded once, as is the result, and values lie within 1; `f32` inside.
fn check(shape: &AttentionShape, dtype: DType, backend: &CpuBackend) {
    let (query, key) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let q = tensor(dtype, &[shape.tokens(), query], 1);
    let k = tensor(dtype, &[shape.tokens(), key], 2);
    let v = tensor(dtype, &[shape.tokens(), key], 3);
    let found = backend.attention(&q, &k, &v, shape).unwrap();
    assert_eq!(found.shape(), q.shape());
    let expected = attention(&wide(&q), &wide(&k), &wide(&v), shape);
    for (index, (found, expected)) in wide(&found).into_iter().zip(expected).enumerate() {
        let bound = 2.0 * unit(dtype) + 1e-5;
        assert!((found - expected).abs() <= bound, "{dtype} {shape:?} at {index}: {found} is not {expected}");
    }
}

fn any_shape() -> impl Strategy<Value = AttentionShape> {
    let window = prop_oneof![Just(None), (1usize..40).prop_map(Some)];
    (1usize..3, 1usize..90, 1usize..4, 1usize..4, 1usize..40, window).prop_map(
        |(batch, seq, kv_heads, group, head_dim, window)| AttentionShape {
            batch,
            seq,
            heads: kv_heads * group,
            kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            window,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn attention_of_any_shape_is_right(shape in any_shape()) {
        for backend in backends(2) {
            for dtype in DTYPES {
                check(&shape, dtype, &backend);
            }
        }
    }
}

#[test]
fn sequences_longer_than_a_block_of_keys_are_right() {
    for window in [None, Some(64), Some(600)] {
        let shape =
            AttentionShape { batch: 1, seq: 1100, heads: 2, kv_heads: 1, head_dim: 8, scale: 2.0, window };
        for backend in backends(2) {
            check(&shape, DType::F32, &backend);
            check(&shape, DType::BF16, &backend);
        }
    }
}

#[test]
fn wide_heads_are_right() {
    let shape =
        AttentionShape { batch: 1, seq: 70, heads: 1, kv_heads: 1, head_dim: 600, scale: 0.1, window: None };
    for backend in backends(1) {
        check(&shape, DType::F32, &backend);
        check(&shape, DType::BF16, &backend);
    }
}
