//! Operations on one element at a time: the gated activation and the residual sum.

use super::exponential::{erf, exp};
use crate::ops::backend::Activation;
use crate::tensor::dtype::Element;
use crate::tensor::simd::dispatched;

dispatched! {
    /// `out[i] = round(round(activation(gate[i])) · up[i])`, with the gate first of the inputs.
    pub(super) fn activate<E: Element>(inputs: (&[E], &[E]), activation: Activation, out: &mut [E]) {
        match activation {
            Activation::Silu => apply(inputs, silu, out),
            Activation::Gelu => apply(inputs, gelu, out),
            Activation::GeluTanh => apply(inputs, gelu_tanh, out),
        }
    }
}

dispatched! {
    /// `sum[i] = round(sum[i] + other[i])`.
    pub(super) fn add<E: Element>(sum: &mut [E], other: &[E]) {
        for (sum, other) in sum.iter_mut().zip(other) {
            *sum = E::from_f32(sum.to_f32() + other.to_f32());
        }
    }
}

#[inline(always)]
fn apply<E: Element>((gate, up): (&[E], &[E]), activation: impl Fn(f32) -> f32, out: &mut [E]) {
    for ((gate, up), out) in gate.iter().zip(up).zip(out) {
        let activated = E::from_f32(activation(gate.to_f32()));
        *out = E::from_f32(activated.to_f32() * up.to_f32());
    }
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    // √(2/π).
    let inner =
        std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2 * (x + 0.044_715 * x * x * x);
    // `(1 + tanh z) / 2` without the cancellation where z is negative.
    x / (1.0 + exp(-2.0 * inner))
}
