//! Every operation of a GPU against the CPU, within the rounding of its type. Without a GPU, an emulated one takes its part
//! (`worker/kernels/emulator`): it shows what kernels and products are given and make of it, on a host's arithmetic.
//! `tests/gpu/run.sh` runs these tests on a real one.

use qlaunch_shared::model::Weighting;
use qlaunch_shared::protocol::NumericPath;

use super::CudaBackend;
use super::emulated::places;
use crate::libraries::Places;
use crate::ops::cpu::CpuBackend;
use crate::ops::{
    Activation, AttentionShape, Backend, CpuPath, Linear, Prediction, RotaryTables, Routing, Share,
};
use crate::tensor::DType;
use crate::tensor::host::HostTensor;

const DTYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

/// Both backends.
fn both() -> (CudaBackend, CpuBackend) {
    let gpu = CudaBackend::open(0, 2, &places()).unwrap();
    (gpu, CpuBackend::new(2, NumericPath::detect()).unwrap())
}

/// Noise between -1 and 1.
fn tensor(dtype: DType, shape: &[usize], seed: u64) -> HostTensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    HostTensor::new(shape, values).unwrap().view().cast(dtype).unwrap()
}

/// Distance between neighbouring numbers around 1.
fn step(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 2f64.powi(-7),
        DType::F16 => 2f64.powi(-10),
        _ => 2f64.powi(-20),
    }
}

/// Within `steps` of the largest value's rounding.
fn assert_close(what: &str, dtype: DType, found: &HostTensor, expected: &HostTensor, steps: f64) {
    assert_eq!((found.shape(), found.dtype()), (expected.shape(), expected.dtype()), "{what}");
    let (found, expected) = (found.to_f32(), expected.to_f32());
    let scale = expected.iter().fold(1e-3f32, |most, value| most.max(value.abs()));
    for (index, (a, b)) in found.iter().zip(&expected).enumerate() {
        let bound = steps * step(dtype) * f64::from(scale);
        assert!(f64::from((a - b).abs()) <= bound, "{what} {dtype} at {index}: {a}, the CPU has {b}");
    }
}

/// The same call on both, with tensors brought there and back.
macro_rules! alike {
    ($what:expr, $dtype:expr, $steps:expr, ($gpu:expr, $cpu:expr), [$($name:ident),*], $call:expr) => {{
        let of_gpu = { $(let $name = $gpu.upload($name.view()).unwrap();)* $call(&$gpu, $(&$name),*).unwrap() };
        let of_gpu = $gpu.download(&of_gpu).unwrap();
        let of_cpu = { $(let $name = $name.clone();)* $call(&$cpu, $(&$name),*).unwrap() };
        assert_close($what, $dtype, &of_gpu, &of_cpu, $steps);
    }};
}

#[test]
fn operations_on_rows_are_the_cpus() {
    let (gpu, cpu) = both();
    for dtype in DTYPES {
        for (rows, width) in [(1, 1), (3, 64), (7, 100), (33, 2048), (5, 5000)] {
            let (x, y) = (tensor(dtype, &[rows, width], 1), tensor(dtype, &[rows, width], 2));
            let weight = tensor(dtype, &[width], 3);
            fn norm<B: Backend>(b: &B, x: &B::Tensor, w: &B::Tensor) -> qlaunch_shared::Result<B::Tensor> {
                b.rms_norm(x, w, 1e-6)
            }
            fn sum<B: Backend>(b: &B, x: &B::Tensor, y: &B::Tensor) -> qlaunch_shared::Result<B::Tensor> {
                let mut sum = x.clone();
                b.add(&mut sum, y)?;
                Ok(sum)
            }
            fn picked<B: Backend>(b: &B, x: &B::Tensor) -> qlaunch_shared::Result<B::Tensor> {
                b.gather(x, &[0, 0])
            }
            alike!("rms_norm", dtype, 2.0, (gpu, cpu), [x, weight], norm);
            alike!("add", dtype, 0.0, (gpu, cpu), [x, y], sum);
            alike!("gather", dtype, 0.0, (gpu, cpu), [x], picked);
            for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
                let of_gpu = gpu
                    .activate(&gpu.upload(x.view()).unwrap(), &gpu.upload(y.view()).unwrap(), activation)
                    .unwrap();
                let expected = cpu.activate(&x, &y, activation).unwrap();
                assert_close("activate", dtype, &gpu.download(&of_gpu).unwrap(), &expected, 2.0);
            }
        }
    }
}

#[test]
fn products_are_the_cpus() {
    let (gpu, cpu) = both();
    for dtype in DTYPES {
        for (m, n, k) in [(1, 8, 8), (16, 48, 64), (33, 129, 72), (512, 1024, 1024)] {
            let (x, w) = (tensor(dtype, &[m, k], 1), tensor(dtype, &[n, k], 2));
            let bias = tensor(dtype, &[n], 3);
            fn plain<B: Backend>(b: &B, x: &B::Tensor, w: &B::Tensor) -> qlaunch_shared::Result<B::Tensor> {
                b.linear(x, Linear { weight: w, bias: None })
            }
            fn biased<B: Backend>(
                b: &B,
                x: &B::Tensor,
                w: &B::Tensor,
                bias: &B::Tensor,
            ) -> qlaunch_shared::Result<B::Tensor> {
                b.linear(x, Linear { weight: w, bias: Some(bias) })
            }
            alike!("linear", dtype, 2.0, (gpu, cpu), [x, w], plain);
            alike!("linear with bias", dtype, 2.0, (gpu, cpu), [x, w, bias], biased);
            let (mut of_gpu, mut of_cpu) = (vec![0f32; k * k], vec![0f32; k * k]);
            gpu.gram(&gpu.upload(x.view()).unwrap(), 1, &mut of_gpu).unwrap();
            cpu.gram(&x, 1, &mut of_cpu).unwrap();
            for row in 0..k {
                for column in row..k {
                    let (a, b) = (of_gpu[row * k + column], of_cpu[row * k + column]);
                    assert!((a - b).abs() <= 1e-4 * m as f32, "gram {dtype} [{row}, {column}]: {a} and {b}");
                }
            }
        }
    }
}

#[test]
fn attention_is_the_cpus() {
    let (gpu, cpu) = both();
    for dtype in DTYPES {
        for (batch, seq, heads, kv_heads, head_dim, window) in [
            (1, 1, 1, 1, 32, None),
            (2, 37, 4, 2, 64, None),
            (1, 512, 8, 2, 128, None),
            (2, 96, 6, 3, 80, Some(17)),
        ] {
            let scale = 1.0 / (head_dim as f32).sqrt();
            let shape = AttentionShape { batch, seq, heads, kv_heads, head_dim, scale, window };
            let q = tensor(dtype, &[batch * seq, heads * head_dim], 1);
            let k = tensor(dtype, &[batch * seq, kv_heads * head_dim], 2);
            let v = tensor(dtype, &[batch * seq, kv_heads * head_dim], 3);
            let of_gpu = gpu
                .attention(
                    &gpu.upload(q.view()).unwrap(),
                    &gpu.upload(k.view()).unwrap(),
                    &gpu.upload(v.view()).unwrap(),
                    &shape,
                )
                .unwrap();
            let expected = cpu.attention(&q, &k, &v, &shape).unwrap();
            assert_close("attention", dtype, &gpu.download(&of_gpu).unwrap(), &expected, 2.0);
        }
    }
}

#[test]
fn rotation_is_the_cpus_to_the_bit_and_leaves_shared_tensors_alone() {
    let (gpu, cpu) = both();
    for dtype in DTYPES {
        let (rows, heads, head_dim, half) = (5, 3, 16, 6);
        let x = tensor(dtype, &[rows, heads * head_dim], 1);
        let (cosines, sines) = (tensor(dtype, &[9, half], 2), tensor(dtype, &[9, half], 3));
        let positions = [0, 8, 3, 3, 1];
        let shared = gpu.upload(x.view()).unwrap();
        let mut of_gpu = shared.clone();
        let tables = RotaryTables {
            cosines: gpu.upload(cosines.view()).unwrap(),
            sines: gpu.upload(sines.view()).unwrap(),
        };
        gpu.rotate(&mut of_gpu, head_dim, &tables, &positions).unwrap();
        let mut of_cpu = x.clone();
        cpu.rotate(&mut of_cpu, head_dim, &RotaryTables { cosines, sines }, &positions).unwrap();
        assert_close("rotate", dtype, &gpu.download(&of_gpu).unwrap(), &of_cpu, 0.0);
        assert_close("what was shared", dtype, &gpu.download(&shared).unwrap(), &x, 0.0);
    }
}

#[test]
fn statistics_are_the_cpus() {
    let (gpu, cpu) = both();
    for dtype in DTYPES {
        for (rows, columns) in [(1, 1), (300, 70), (1000, 513)] {
            let x = tensor(dtype, &[rows, columns], 4);
            let on_gpu = gpu.upload(x.view()).unwrap();
            assert_eq!(gpu.magnitude(&on_gpu).unwrap(), cpu.magnitude(&x).unwrap());
            let (mut amax, mut sums) = (vec![0f32; columns], vec![0f64; columns]);
            let (mut expected, mut expected_sums) = (amax.clone(), sums.clone());
            gpu.channels(&on_gpu, &mut amax, &mut sums).unwrap();
            cpu.channels(&x, &mut expected, &mut expected_sums).unwrap();
            assert_eq!(amax, expected);
            let close = sums.iter().zip(&expected_sums).all(|(a, b)| (a - b).abs() <= 1e-9 * b.abs());
            assert!(close, "{sums:?} and {expected_sums:?}");
        }
    }
    let odd = HostTensor::new([4], vec![f32::NAN, -3.0, f32::INFINITY, 2.0]).unwrap();
    let found = gpu.magnitude(&gpu.upload(odd.view()).unwrap()).unwrap();
    assert_eq!((found.amax, found.nans, found.infinities), (3.0, 1, 1));
}

#[test]
fn experts_are_the_cpus() {
    let (gpu, cpu) = both();
    for dtype in DTYPES {
        let scores = tensor(dtype, &[9, 8], 1);
        let routing =
            Routing { per_token: 3, weighting: Weighting { normalised: true, rounded: dtype != DType::F32 } };
        let of_gpu = gpu.route(&gpu.upload(scores.view()).unwrap(), routing).unwrap();
        assert_eq!(of_gpu, cpu.route(&scores, routing).unwrap());
        let (sum, rows) = (tensor(dtype, &[6, 40], 2), tensor(dtype, &[2, 40], 3));
        let share = Share { tokens: vec![1, 4], weights: vec![0.25, 0.7] };
        let (mut on_gpu, mut on_cpu) = (gpu.upload(sum.view()).unwrap(), sum.clone());
        gpu.scatter_add(&mut on_gpu, &gpu.upload(rows.view()).unwrap(), &share).unwrap();
        cpu.scatter_add(&mut on_cpu, &rows, &share).unwrap();
        assert_close("scatter_add", dtype, &gpu.download(&on_gpu).unwrap(), &on_cpu, 0.0);
    }
}

#[test]
fn likelihoods_and_divergences_are_the_cpus() {
    let (gpu, cpu) = both();
    for dtype in DTYPES {
        for vocabulary in [17, 20_000] {
            let (hidden, other) = (tensor(dtype, &[5, 64], 1), tensor(dtype, &[5, 64], 2));
            let head = tensor(dtype, &[vocabulary, 64], 3);
            let targets = [0, 16, 3, 5, 1];
            let on_gpu = |tensor: &HostTensor| gpu.upload(tensor.view()).unwrap();
            let (gpu_hidden, gpu_other, gpu_head) = (on_gpu(&hidden), on_gpu(&other), on_gpu(&head));
            let found = gpu
                .compare(
                    Prediction { hidden: &gpu_hidden, head: &gpu_head },
                    Prediction { hidden: &gpu_other, head: &gpu_head },
                    &targets,
                )
                .unwrap();
            let expected = cpu
                .compare(
                    Prediction { hidden: &hidden, head: &head },
                    Prediction { hidden: &other, head: &head },
                    &targets,
                )
                .unwrap();
            let losses = gpu.losses(Prediction { hidden: &gpu_hidden, head: &gpu_head }, &targets).unwrap();
            let bound = 4.0 * step(dtype);
            for ((a, b), loss) in found.iter().zip(&expected).zip(losses) {
                for (a, b) in [
                    (a.reference_loss, b.reference_loss),
                    (a.loss, b.loss),
                    (a.divergence, b.divergence),
                    (loss, b.reference_loss),
                ] {
                    assert!((a - b).abs() <= bound * b.abs().max(1.0), "{dtype}: {a}, the CPU has {b}");
                }
            }
        }
    }
}

#[test]
fn a_library_that_is_missing_is_told_with_a_remedy() {
    let named = vec![("QLAUNCH_LIBCUBLASLT".to_owned(), "/gone/libcublasLt.so.12".into())];
    let without = Places { named: [places().named, named].concat(), ..Places::default() };
    let without = Places { named: without.named.into_iter().rev().collect(), ..without };
    let error = CudaBackend::open(0, 1, &without).unwrap_err();
    assert!(error.message.contains("libcublasLt is not where") && error.hint.is_some(), "{error}");
}
