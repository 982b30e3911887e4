//! bf16 operations against torch's CPU kernels: `golden/make.py` made the golden file.

use half::bf16;
use serde_json::Value;

use super::reference::{backends, wide};
use crate::ops::{Activation, AttentionShape, Backend, Linear, Prediction, RotaryTables};
use crate::tensor::host::HostTensor;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/torch.json")).unwrap()
}

fn numbers(value: &Value) -> impl Iterator<Item = f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap())
}

fn tensor(golden: &Value, name: &str) -> HostTensor {
    let shape: Vec<usize> = numbers(&golden[name]["shape"]).map(|side| side as usize).collect();
    let bits = numbers(&golden[name]["bits"]).map(|bits| bf16::from_bits(bits as u16));
    HostTensor::new(shape, bits.collect::<Vec<_>>()).unwrap()
}

/// Fails unless at most `odd` elements differ, each by one step of bf16 or by `slack`.
///
/// Sums in another order, or another `exp`, may fall on the other side of a tie between two bf16 values.
fn assert_like(name: &str, found: &HostTensor, golden: &Value, odd: usize, slack: f64) {
    let expected = tensor(golden, name);
    assert_eq!(found.shape(), expected.shape(), "{name}");
    let pairs = wide(found).into_iter().zip(wide(&expected));
    let differing: Vec<_> = pairs.filter(|(found, expected)| found != expected).collect();
    assert!(differing.len() <= odd, "{name}: {} differ: {differing:?}", differing.len());
    for (found, expected) in differing {
        assert!(
            (found - expected).abs() <= 2f64.powi(-7) * expected.abs() + slack,
            "{name}: {found}, not {expected}"
        );
    }
}

#[test]
fn bf16_operations_give_the_bits_of_torch() {
    let golden = golden();
    let [x, other] = ["x", "other"].map(|name| tensor(&golden, name));
    for backend in backends(2) {
        let norm = backend.rms_norm(&x, &tensor(&golden, "gain"), 1e-5).unwrap();
        assert_like("rms_norm", &norm, &golden, 0, 0.0);
        let (cosines, sines) = (tensor(&golden, "cosines"), tensor(&golden, "sines"));
        let positions: Vec<u32> = (0..24).collect();
        let mut turned = x.clone();
        backend.rotate(&mut turned, 16, &RotaryTables { cosines, sines }, &positions).unwrap();
        assert_like("rotate", &turned, &golden, 0, 0.0);
        let mut sum = x.clone();
        backend.add(&mut sum, &other).unwrap();
        assert_like("add", &sum, &golden, 0, 0.0);
        for (name, activation) in
            [("silu", Activation::Silu), ("gelu", Activation::Gelu), ("gelu_tanh", Activation::GeluTanh)]
        {
            assert_like(name, &backend.activate(&x, &other, activation).unwrap(), &golden, 2, 0.0);
        }
    }
}

#[test]
fn bf16_products_and_attention_are_those_of_torch_but_for_ties() {
    let golden = golden();
    let [x, weight, bias, k, v] = ["x", "weight", "bias", "k", "v"].map(|name| tensor(&golden, name));
    let shape =
        AttentionShape { batch: 1, seq: 24, heads: 4, kv_heads: 2, head_dim: 16, scale: 0.25, window: None };
    for backend in backends(2) {
        let plain = backend.linear(&x, Linear { weight: &weight, bias: None }).unwrap();
        assert_like("linear", &plain, &golden, 2, 0.0);
        let biased = backend.linear(&x, Linear { weight: &weight, bias: Some(&bias) }).unwrap();
        assert_like("linear_with_bias", &biased, &golden, 2, 0.0);
        let attended = backend.attention(&x, &k, &v, &shape).unwrap();
        // A weight on the other side of a tie moves a whole row, by a step of a value of size 1 at most.
        assert_like("attention", &attended, &golden, 30, 2f64.powi(-8));
    }
}

#[test]
fn losses_and_divergences_are_those_of_torch() {
    let golden = golden();
    let [hidden, other, head] = ["x", "other", "weight"].map(|name| tensor(&golden, name));
    let targets: Vec<u32> = (0..24).collect();
    for backend in backends(2) {
        let (of, with) =
            (Prediction { hidden: &hidden, head: &head }, Prediction { hidden: &other, head: &head });
        let scores = backend.compare(of, with, &targets).unwrap();
        let expected = numbers(&golden["losses"]).zip(numbers(&golden["divergences"]));
        for (score, (loss, divergence)) in scores.iter().zip(expected) {
            // A logit on the other side of a tie moves a row by half a step of a logit of size 16.
            assert!((score.reference_loss - loss).abs() < 0.04, "{score:?}, not {loss}");
            assert!((score.divergence - divergence).abs() < 0.08, "{score:?}, not {divergence}");
        }
        let close = scores
            .iter()
            .zip(numbers(&golden["losses"]))
            .filter(|(s, l)| (s.reference_loss - l).abs() < 1e-5);
        assert!(close.count() >= 20, "most rows have no such logit");
    }
}
