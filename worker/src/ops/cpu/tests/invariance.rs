//! The bits of a row depend on nothing but its own inputs: not on threads, not on other rows.

use super::reference::{DTYPES, backends, tensor};
use crate::ops::{AttentionShape, Backend, CpuBackend, Linear, Prediction};
use crate::tensor::host::{HostTensor, Storage};

/// Exact bits, so that zeros of different sign and NaN count as different too.
fn bits(tensor: &HostTensor) -> Vec<u32> {
    tensor.to_f32().into_iter().map(f32::to_bits).collect()
}

/// Rows `first..last` of a matrix.
fn rows(tensor: &HostTensor, first: usize, last: usize) -> HostTensor {
    let width = tensor.shape()[1];
    let shape = [last - first, width];
    match tensor.storage() {
        Storage::F32(elements) => HostTensor::new(shape, elements[first * width..last * width].to_vec()),
        Storage::BF16(elements) => HostTensor::new(shape, elements[first * width..last * width].to_vec()),
        Storage::F16(elements) => HostTensor::new(shape, elements[first * width..last * width].to_vec()),
    }
    .unwrap()
}

#[test]
fn a_row_of_a_product_is_the_same_alone_in_company_and_on_any_threads() {
    let (m, n, k) = (211, 77, 701);
    for (single, triple) in backends(1).zip(backends(3)) {
        for dtype in DTYPES {
            let (x, w) = (tensor(dtype, &[m, k], 1), tensor(dtype, &[n, k], 2));
            let layer = Linear { weight: &w, bias: None };
            let whole = single.linear(&x, layer).unwrap();
            assert_eq!(bits(&whole), bits(&triple.linear(&x, layer).unwrap()), "{dtype} on 3 threads");
            for (first, last) in [(0, 1), (13, 15), (210, 211), (5, 199)] {
                let part = triple.linear(&rows(&x, first, last), layer).unwrap();
                assert_eq!(bits(&part), bits(&rows(&whole, first, last)), "{dtype} rows {first}..{last}");
            }
            // Columns, too: a layer that is cut in two gives the same outputs.
            let upper = rows(&w, 40, n);
            let cut = single.linear(&x, Linear { weight: &upper, bias: None }).unwrap();
            for row in 0..m {
                assert_eq!(bits(&cut)[row * (n - 40)..][..n - 40], bits(&whole)[row * n + 40..][..n - 40]);
            }
        }
    }
}

#[test]
fn a_sequence_is_attended_alike_alone_in_a_batch_and_as_a_prefix() {
    let shape = AttentionShape {
        batch: 3,
        seq: 133,
        heads: 4,
        kv_heads: 2,
        head_dim: 24,
        scale: 0.2,
        window: Some(100),
    };
    let (query, key) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let run = |backend: &CpuBackend, shape: &AttentionShape, qkv: [&HostTensor; 3]| {
        backend.attention(qkv[0], qkv[1], qkv[2], shape).unwrap()
    };
    for (single, triple) in backends(1).zip(backends(3)) {
        for dtype in DTYPES {
            let q = tensor(dtype, &[shape.tokens(), query], 1);
            let (k, v) = (tensor(dtype, &[shape.tokens(), key], 2), tensor(dtype, &[shape.tokens(), key], 3));
            let whole = run(&single, &shape, [&q, &k, &v]);
            assert_eq!(bits(&whole), bits(&run(&triple, &shape, [&q, &k, &v])), "{dtype} on 3 threads");
            for seq in [133, 61, 1] {
                let part = AttentionShape { batch: 1, seq, ..shape };
                let [q, k, v] = [&q, &k, &v].map(|tensor| rows(tensor, 133, 133 + seq));
                let expected = rows(&whole, 133, 133 + seq);
                assert_eq!(
                    bits(&run(&triple, &part, [&q, &k, &v])),
                    bits(&expected),
                    "{dtype} {seq} tokens alone"
                );
            }
        }
    }
}

#[test]
fn losses_are_the_same_on_any_threads_and_alone() {
    for (single, triple) in backends(1).zip(backends(3)) {
        for dtype in DTYPES {
            let (hidden, head) = (tensor(dtype, &[40, 32], 1), tensor(dtype, &[4200, 32], 2));
            let targets: Vec<u32> = (0..40).map(|row| row * 101).collect();
            let whole = single.losses(Prediction { hidden: &hidden, head: &head }, &targets).unwrap();
            assert_eq!(whole, triple.losses(Prediction { hidden: &hidden, head: &head }, &targets).unwrap());
            let row = rows(&hidden, 7, 8);
            let alone = triple.losses(Prediction { hidden: &row, head: &head }, &targets[7..8]).unwrap();
            assert_eq!(alone[0], whole[7]);
        }
    }
}

#[test]
fn paths_differ_in_products_alone() {
    for dtype in DTYPES {
        let (x, gain) = (tensor(dtype, &[50, 96], 1), tensor(dtype, &[96], 2));
        let mut results = backends(2).map(|backend| {
            let normal = backend.rms_norm(&x, &gain, 1e-6).unwrap();
            let mut active = backend.activate(&normal, &x, crate::ops::Activation::Silu).unwrap();
            backend.add(&mut active, &x).unwrap();
            bits(&active)
        });
        let first = results.next().unwrap();
        assert!(results.all(|other| other == first), "{dtype}");
    }
}
