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
use super::Stores;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::tensor::simd::{InstructionSet, Level};

/// Elements looked at together: the branch for those outside the normal range is taken once for all of them.
pub(super) const GROUP: usize = 64;
/// How many elements ahead memory is asked for: two pages.
pub(super) const AHEAD: usize = 4096;
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
    pub(super) base: u8,
    /// Mantissas after which the code steps up; 127 where the octave has no further step.
    pub(super) steps: [i8; STEPS],
    /// Smallest magnitude whose quotient is a normal number of E4M3.
    pub(super) normal: u16,
    /// Smallest magnitude with the largest code; larger ones have it as well.
    pub(super) saturated: u16,
    /// Magnitudes after which the code of a subnormal steps up.
    subnormal_steps: [i16; STEPS],
    /// By mantissa, the code in octave 0 less the mantissa's upper three bits, modulo 256.
    pub(super) table: [u8; 128],
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
        let reference = guess(2.0) >> MANTISSA_BITS;
        let start = reference << MANTISSA_BITS;
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
        let mut octave = Self {
            base: code(start).wrapping_sub((reference << 3) as u8),
            steps,
            normal: first_magnitude(guess(e4m3::SMALLEST_NORMAL), limit, |bits| {
                quotient(bits) >= e4m3::SMALLEST_NORMAL
            }),
            saturated: first_magnitude(guess(e4m3::LARGEST), limit, |bits| code(bits) >= e4m3::LARGEST_CODE),
            subnormal_steps,
            table: [0; 128],
        };
        for mantissa in 0..128u16 {
            let upper_bits = (mantissa >> (MANTISSA_BITS - 3)) as u8;
            octave.table[usize::from(mantissa)] = octave.normal_code(mantissa).wrapping_sub(upper_bits);
        }
        Some(octave)
    }

    /// Encodes as many whole groups of finite bf16 elements, given by their bits, as there are; returns how many elements
    /// that were: none where the vector instructions are missing.
    pub(super) fn encode(
        &self,
        set: InstructionSet,
        stores: Stores,
        source: &[u16],
        codes: &mut [u8],
    ) -> usize {
        match set.level() {
            // SAFETY: an `InstructionSet` of this level exists only where the CPU has its instructions, and the one that
            // it does not vouch for was asked for.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 if avx512::is_available() => unsafe { avx512::encode(self, stores, source, codes) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::Avx512 => unsafe { avx2::encode(self, source, codes) },
            _ => 0,
        }
    }

    /// The codes of any finite magnitudes with their signs.
    #[inline(always)]
    pub(super) fn encode_any(&self, group: &[u16; GROUP], codes: &mut [u8; GROUP]) {
        for (at, code) in codes.iter_mut().enumerate() {
            let magnitude = group[at] & 0x7fff;
            let mut subnormal = 0u8;
            for step in self.subnormal_steps {
                subnormal += u8::from(magnitude as i16 > step);
            }
            let normal = self.normal_code(magnitude.min(self.saturated));
            *code = if magnitude < self.normal { subnormal } else { normal } | (group[at] >> 8) as u8 & 0x80;
        }
    }

    /// The code of a magnitude in the normal range.
    #[inline(always)]
    fn normal_code(&self, bits: u16) -> u8 {
        let mantissa = (bits & 0x7f) as i8;
        let octave = (bits >> (MANTISSA_BITS - 3)) as u8 & 0xf8;
        let mut code = octave.wrapping_add(self.base);
        for step in self.steps {
            code = code.wrapping_add(u8::from(mantissa > step));
        }
        code
    }
}
