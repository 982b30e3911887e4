//! FP8 codes of a bf16 tensor by comparing bits: one octave of the code, repeated.
//!
//! As long as the quotient `w / scale` is a normal number of f32, bf16 and E4M3, doubling `w` doubles the quotient and
//! every rounding of it, so the code grows by exactly 8. One octave therefore describes all: the code of exponent `e` and
//! mantissa `f` is `8·e`, plus a constant, plus the number of steps that the mantissa has passed. What lies below E4M3's
//! normal range is told apart by its eight steps; what lies above its largest value becomes that.
//! All steps are taken from the definition itself, so the codes are the same bits.

use half::bf16;

use super::super::e4m3;
use super::super::search::first_magnitude;
use crate::tensor::simd::{InstructionSet, dispatched};

/// Elements looked at together: the branch for those outside the normal range is taken once for all of them.
const GROUP: usize = 64;
/// Codes of one octave, and of the subnormals.
const STEPS: usize = 8;
/// Mantissa bits of bf16.
const MANTISSA_BITS: u32 = 7;
/// Where amax/448 and everything that E4M3 tells apart below it are normal numbers with room to spare.
const SCALES: std::ops::Range<f32> = 1e-30..1e30;

/// Where the codes of one tensor change, as bits of bf16 magnitudes.
#[derive(Debug, Clone)]
pub(super) struct Octave {
    /// The code of mantissa 0 in octave 0, modulo 256.
    base: u8,
    /// Mantissas after which the code steps up; 127 where the octave has no further step.
    steps: [i8; STEPS],
    /// Smallest magnitude whose quotient is a normal number of E4M3.
    normal: u16,
    /// Smallest magnitude with the largest code; larger ones have it as well.
    saturated: u16,
    /// Magnitudes after which the code of a subnormal steps up.
    subnormal_steps: [i16; STEPS],
}

impl Octave {
    /// The steps for one scale; none for scales where quotients would leave the normal numbers.
    pub(super) fn new(scale: f32) -> Option<Self> {
        if !SCALES.contains(&scale) {
            return None;
        }
        let quotient = |bits: u16| bf16::from_f32(bf16::from_bits(bits).to_f32() / scale).to_f32();
        let code = |bits: u16| e4m3::encode(quotient(bits));
        let guess = |value: f32| bf16::from_f32(value * scale).to_bits();
        let limit = 0x7f80;
        // Twice the scale: the whole octave lies well inside the normal range.
        let octave = guess(2.0) >> MANTISSA_BITS;
        let start = octave << MANTISSA_BITS;
        let mut steps = [i8::MAX; STEPS];
        let changes = (1..128u16).filter(|mantissa| code(start + mantissa) != code(start + mantissa - 1));
        for (step, mantissa) in steps.iter_mut().zip(changes) {
            *step = (mantissa - 1) as i8;
        }
        let mut subnormal_steps = [0; STEPS];
        for (step, target) in subnormal_steps.iter_mut().zip(1u8..) {
            let middle = (f32::from(target) - 0.5) * e4m3::SMALLEST;
            *step = first_magnitude(guess(middle), limit, |bits| code(bits) >= target) as i16 - 1;
        }
        Some(Self {
            base: code(start).wrapping_sub((octave << 3) as u8),
            steps,
            normal: first_magnitude(guess(e4m3::SMALLEST_NORMAL), limit, |bits| {
                quotient(bits) >= e4m3::SMALLEST_NORMAL
            }),
            saturated: first_magnitude(guess(e4m3::LARGEST), limit, |bits| code(bits) >= e4m3::LARGEST_CODE),
            subnormal_steps,
        })
    }

    /// Writes the codes of finite bf16 elements, given by their bits.
    pub(super) fn encode(&self, set: InstructionSet, source: &[u16], codes: &mut [u8]) {
        encode_groups(set, self, source, codes);
    }

    /// The code of a magnitude in the normal range, without sign.
    #[inline(always)]
    fn normal_code(&self, bits: u16) -> u8 {
        let mantissa = (bits & 0x7f) as i8;
        let octave = (bits >> (MANTISSA_BITS - 3)) as u8 & 0xf8;
        let passed = self.steps.iter().fold(0u8, |passed, step| passed + u8::from(mantissa > *step));
        octave.wrapping_add(self.base).wrapping_add(passed)
    }

    /// The code of any finite magnitude, without sign.
    #[inline(always)]
    fn any_code(&self, magnitude: u16) -> u8 {
        let bounded = magnitude.min(self.saturated);
        let subnormal = self
            .subnormal_steps
            .iter()
            .fold(0u8, |passed, step| passed + u8::from(magnitude as i16 > *step));
        if magnitude < self.normal { subnormal } else { self.normal_code(bounded) }
    }

    /// Whether a magnitude is in the normal range, `saturated` included.
    #[inline(always)]
    fn are_normal(&self, group: &[u16; GROUP]) -> bool {
        let span = self.saturated - self.normal;
        // Below the range the difference wraps around to a large one.
        let farthest = group.iter().fold(0, |far, bits| far.max((bits & 0x7fff).wrapping_sub(self.normal)));
        farthest <= span
    }
}

dispatched! {
    fn encode_groups(octave: &Octave, source: &[u16], codes: &mut [u8]) {
        let (groups, rest) = source.as_chunks::<GROUP>();
        let (code_groups, code_rest) = codes.as_chunks_mut::<GROUP>();
        for (group, codes) in groups.iter().zip(code_groups) {
            if octave.are_normal(group) {
                for (code, bits) in codes.iter_mut().zip(group) {
                    *code = octave.normal_code(*bits) | sign(*bits);
                }
            } else {
                for (code, bits) in codes.iter_mut().zip(group) {
                    *code = octave.any_code(bits & 0x7fff) | sign(*bits);
                }
            }
        }
        for (code, bits) in code_rest.iter_mut().zip(rest) {
            *code = octave.any_code(bits & 0x7fff) | sign(*bits);
        }
    }
}

/// The sign at its place in a code.
#[inline(always)]
fn sign(bits: u16) -> u8 {
    (bits >> 8) as u8 & 0x80
}
