//! Operands that do not fit are refused with an error that names the operation.

use super::reference::{backends, tensor};
use qlaunch_shared::protocol::NumericPath;

use crate::ops::{AttentionShape, Backend, CpuBackend, Linear, Prediction, RotaryTables};
use crate::tensor::DType;

fn backend() -> CpuBackend {
    backends(1).next().unwrap()
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let backend = backend();
    let f32 = |shape: &[usize]| tensor(DType::F32, shape, 1);
    let (x, w) = (f32(&[2, 4]), f32(&[3, 5]));
    let error = backend.linear(&x, Linear { weight: &w, bias: None }).unwrap_err();
    assert!(error.message.contains("linear") && error.message.contains("[3, 5]"), "{error}");
    let (w, bias) = (f32(&[3, 4]), f32(&[2]));
    assert!(backend.linear(&x, Linear { weight: &w, bias: Some(&bias) }).is_err());
    assert!(backend.rms_norm(&x, &f32(&[3]), 1e-5).is_err());
    assert!(backend.add(&mut f32(&[2, 4]), &f32(&[4, 2])).is_err());
    let mut shape =
        AttentionShape { batch: 1, seq: 2, heads: 2, kv_heads: 1, head_dim: 2, scale: 1.0, window: None };
    assert!(backend.attention(&x, &x, &x, &shape).is_err());
    shape.kv_heads = 0;
    assert!(backend.attention(&x, &x, &x, &shape).is_err());
    let tables = RotaryTables { cosines: f32(&[3, 1]), sines: f32(&[3, 1]) };
    assert!(backend.rotate(&mut f32(&[2, 4]), 2, &tables, &[0, 2]).is_ok());
    assert!(backend.rotate(&mut f32(&[2, 4]), 2, &tables, &[0, 3]).is_err());
    assert!(backend.rotate(&mut f32(&[2, 4]), 3, &tables, &[0, 1]).is_err());
}

#[test]
fn types_are_not_mixed() {
    let (x, w) = (tensor(DType::F32, &[2, 4], 1), tensor(DType::BF16, &[3, 4], 1));
    let error = backend().linear(&x, Linear { weight: &w, bias: None }).unwrap_err();
    assert!(error.message.contains("BF16"), "{error}");
}

#[test]
fn tokens_outside_the_vocabulary_are_refused() {
    let table = tensor(DType::F32, &[3, 4], 1);
    assert_eq!(backend().gather(&table, &[2, 0]).unwrap().shape(), [2, 4]);
    assert!(backend().gather(&table, &[3]).unwrap_err().message.contains("row 3"));
    let hidden = tensor(DType::F32, &[1, 4], 1);
    let error = backend().losses(Prediction { hidden: &hidden, head: &table }, &[3]).unwrap_err();
    assert!(error.message.contains("vocabulary of 3"), "{error}");
}

#[test]
fn a_backend_without_threads_is_refused() {
    assert_eq!(CpuBackend::new(0, NumericPath::Portable).unwrap_err().exit_code(), 2);
}

#[test]
fn a_batch_without_tokens_is_no_failure() {
    let backend = backend();
    let (x, w) = (tensor(DType::F32, &[0, 4], 1), tensor(DType::F32, &[3, 4], 1));
    assert_eq!(backend.linear(&x, Linear { weight: &w, bias: None }).unwrap().shape(), [0, 3]);
    assert!(backend.losses(Prediction { hidden: &x, head: &w }, &[]).unwrap().is_empty());
    assert_eq!(backend.gather(&w, &[]).unwrap().shape(), [0, 4]);
}
