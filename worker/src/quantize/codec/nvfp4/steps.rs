//! NVFP4 codes of 16-bit elements by comparing bits.
//!
//! Under one tensor scale there are only 126 block scales, and under one block scale the code of an element grows with its
//! magnitude. So 126 rows of seven magnitudes, each the first to get the next code, replace the division, the rounding and
//! the ties. The rows are taken from the definition itself, so the codes are the same bits.

use super::super::search::first_magnitude;
use super::super::{e2m1, e4m3};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use super::{Encoded, Encoder, Source, TensorScale};
use crate::tensor::simd::{InstructionSet, Level};

/// Elements that share a row: a block, or half of one.
pub(super) const PIECE: usize = 16;
/// Pieces whose scales are computed together.
pub(super) const PIECES: usize = 16;
/// Elements handled together.
pub(super) const GROUP: usize = PIECE * PIECES;
/// Up to this amax, every element that is not zero has a quotient that is not, so its sign is the code's sign: the smallest
/// bf16 magnitude, 2^-133, over the largest block scale, 2^16 / 6, is above 2^-149.
const LARGEST_AMAX: f32 = 65536.0;

/// For one block scale: the largest magnitudes, as bits, that do not yet reach the codes 1 to 7, and one word unused.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(16))]
pub(super) struct Row(pub(super) [i16; 8]);

/// The rows of all block scales of a tensor, by their E4M3 code.
#[derive(Debug, Clone)]
pub(super) struct Steps {
    rows: [Row; 128],
}

impl Steps {
    /// The steps under one tensor scale, for elements of type `E`; none if they have no 16 bits, or are so large that the
    /// steps do not hold.
    pub(super) fn new<E: Source>(tensor: TensorScale, amax: f32) -> Option<Box<Self>> {
        if E::halves(&[]).is_none() || amax > LARGEST_AMAX {
            return None;
        }
        let mut rows = [Row::default(); 128];
        for code in 1..=e4m3::LARGEST_CODE {
            rows[usize::from(code)] = row_of::<E>(tensor.block_scale(code));
        }
        Some(Box::new(Self { rows }))
    }

    /// Encodes as many whole groups of finite elements, given by their bits, as there are; returns how many elements
    /// that were: none where the vector instructions are missing.
    pub(super) fn encode<E: Source>(
        &self,
        set: InstructionSet,
        encoder: &Encoder<E>,
        source: &[u16],
        target: Encoded<'_>,
    ) -> usize {
        match set.level() {
            // SAFETY: an `InstructionSet` of this level exists only where the CPU has its instructions.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { self.encode_avx512(encoder, source, target) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { self.encode_avx2(encoder, source, target) },
            _ => 0,
        }
    }

    /// The rows of a group's pieces, by the scales of their blocks.
    #[inline(always)]
    fn rows_of(&self, codes: [u8; PIECES]) -> [&Row; PIECES] {
        codes.map(|code| &self.rows[usize::from(code & 0x7f)])
    }
}

/// Writes the loop over groups for one instruction set.
#[cfg(target_arch = "x86_64")]
macro_rules! encode_groups {
    ($name:ident, $kernel:ident, $features:literal) => {
        impl Steps {
            #[target_feature(enable = $features)]
            fn $name<E: Source>(&self, encoder: &Encoder<E>, source: &[u16], target: Encoded<'_>) -> usize {
                let groups = source.as_chunks::<GROUP>().0;
                let codes = target.codes.as_chunks_mut::<{ GROUP / 2 }>().0;
                let scales = target.scales.chunks_exact_mut(GROUP / encoder.block);
                for ((group, codes), scales) in groups.iter().zip(codes).zip(scales) {
                    let block_codes = block_codes(encoder, $kernel::largest(group));
                    for (scale, code) in scales.iter_mut().zip(block_codes.iter().step_by(encoder.block / PIECE)) {
                        *scale = *code;
                    }
                    $kernel::encode(self.rows_of(block_codes), group, codes);
                }
                groups.len() * GROUP
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
encode_groups!(encode_avx2, avx2, "avx2,fma");
#[cfg(target_arch = "x86_64")]
encode_groups!(encode_avx512, avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma");

/// The scale of each piece's block.
#[inline(always)]
fn block_codes<E: Source>(encoder: &Encoder<E>, mut largest: [u16; PIECES]) -> [u8; PIECES] {
    let pieces_per_block = encoder.block / PIECE;
    if pieces_per_block > 1 {
        for block in largest.chunks_exact_mut(pieces_per_block) {
            block.fill(block.iter().fold(0, |far, bits| far.max(*bits)));
        }
    }
    let mut codes = [0; PIECES];
    for (code, bits) in codes.iter_mut().zip(largest) {
        *code = encoder.tensor.block_code(E::of_magnitude_bits(bits.into()));
    }
    codes
}

/// The steps under one block scale.
fn row_of<E: Source>(scale: f32) -> Row {
    let infinite = bits_of::<E>(f32::INFINITY);
    let mut row = Row::default();
    for ((step, middle), code) in row.0.iter_mut().zip(e2m1::MIDDLES).zip(1..) {
        let first = first_magnitude(bits_of::<E>(middle * scale), infinite, |bits| {
            e2m1::encode_magnitude(E::of_magnitude_bits(bits.into()) / scale) >= code
        });
        *step = first as i16 - 1;
    }
    row
}

/// The bits of the 16-bit element nearest to a magnitude.
fn bits_of<E: Source>(magnitude: f32) -> u16 {
    let bits: u32 = E::from_f32(magnitude).magnitude_bits().into();
    bits as u16
}
