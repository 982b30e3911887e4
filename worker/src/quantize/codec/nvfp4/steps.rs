//! NVFP4 codes of 16-bit elements by comparing bits.
//!
//! Under one tensor scale there are only 126 block scales, and under one block scale the code of an element grows with its
//! magnitude. So 126 rows of seven magnitudes, each the first to get the next code, replace the division, the rounding and
//! the ties. The rows are taken from the definition itself, so the codes are the same bits.

use super::super::search::first_magnitude;
use super::super::{e2m1, e4m3};
use super::{Encoded, Encoder, Source, TensorScale};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
#[cfg(target_arch = "x86_64")]
use crate::tensor::prefetch::prefetch;
use crate::tensor::simd::{InstructionSet, Level};

/// Elements that share a row: a block, or half of one.
pub(super) const PIECE: usize = 16;
/// Pieces whose scales are computed together.
pub(super) const PIECES: usize = 16;
/// Elements handled together.
pub(super) const GROUP: usize = PIECE * PIECES;
/// Groups whose scales are written before their codes: the elements are still in the first-level cache for the codes, and
/// those need not wait for the divisions of their own scales.
const BATCH: usize = 16;
/// Up to this block scale, every element that is not zero has a quotient that is not, so its sign is the code's sign: the
/// smallest bf16 magnitude, 2^-133, over 2^14 is above 2^-149.
const LARGEST_SCALE: f32 = 16384.0;

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
    pub(super) fn new<E: Source>(tensor: TensorScale) -> Option<Box<Self>> {
        if E::halves(&[]).is_none() || tensor.block_scale(e4m3::LARGEST_CODE) > LARGEST_SCALE {
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
        match encoder.block / PIECE {
            1 => self.encode_blocks::<E, 1>(set, encoder.tensor, source, target),
            2 => self.encode_blocks::<E, 2>(set, encoder.tensor, source, target),
            _ => 0,
        }
    }

    fn encode_blocks<E: Source, const PIECES_PER_BLOCK: usize>(
        &self,
        set: InstructionSet,
        tensor: TensorScale,
        source: &[u16],
        target: Encoded<'_>,
    ) -> usize {
        match set.level() {
            // SAFETY: an `InstructionSet` of this level exists only where the CPU has its instructions.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { self.encode_avx512::<E, PIECES_PER_BLOCK>(tensor, source, target) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { self.encode_avx2::<E, PIECES_PER_BLOCK>(tensor, source, target) },
            _ => 0,
        }
    }
}

/// Writes the loop over groups for one instruction set.
#[cfg(target_arch = "x86_64")]
macro_rules! encode_groups {
    ($name:ident, $kernel:ident, $features:literal) => {
        impl Steps {
            #[target_feature(enable = $features)]
            fn $name<E: Source, const PIECES_PER_BLOCK: usize>(
                &self,
                tensor: TensorScale,
                source: &[u16],
                target: Encoded<'_>,
            ) -> usize {
                let groups = source.as_chunks::<GROUP>().0;
                let codes = target.codes.as_chunks_mut::<{ GROUP / 2 }>().0;
                // For every piece of a batch the scale of its block.
                let mut of_pieces = [[0u8; PIECES]; BATCH];
                for (batch, groups) in groups.chunks(BATCH).enumerate() {
                    let first = batch * BATCH;
                    for (at, group) in groups.iter().enumerate() {
                        let largest = $kernel::largest(group);
                        of_pieces[at] = scales_of_pieces::<E, PIECES_PER_BLOCK>(tensor, largest);
                        write_scales::<PIECES_PER_BLOCK>(&of_pieces[at], first + at, target.scales);
                    }
                    for (at, group) in groups.iter().enumerate() {
                        prefetch(group, 2 * BATCH * GROUP);
                        $kernel::encode(&self.rows, &of_pieces[at], group, &mut codes[first + at]);
                    }
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

/// The scale of each piece's block, from the largest magnitudes of all pieces of a group.
#[inline(always)]
fn scales_of_pieces<E: Source, const PIECES_PER_BLOCK: usize>(
    tensor: TensorScale,
    mut largest: [u16; PIECES],
) -> [u8; PIECES] {
    if PIECES_PER_BLOCK > 1 {
        for block in largest.as_chunks_mut::<PIECES_PER_BLOCK>().0 {
            *block = [block.iter().fold(0, |far, bits| far.max(*bits)); PIECES_PER_BLOCK];
        }
    }
    let mut scales = [0; PIECES];
    for (at, scale) in scales.iter_mut().enumerate() {
        *scale = tensor.block_code(E::of_magnitude_bits(largest[at].into()));
    }
    scales
}

/// Writes the scales of a group's blocks.
#[inline(always)]
fn write_scales<const PIECES_PER_BLOCK: usize>(of_pieces: &[u8; PIECES], group: usize, scales: &mut [u8]) {
    let blocks = PIECES / PIECES_PER_BLOCK;
    for (at, scale) in scales[group * blocks..(group + 1) * blocks].iter_mut().enumerate() {
        *scale = of_pieces[at * PIECES_PER_BLOCK];
    }
}

/// The steps under one block scale.
fn row_of<E: Source>(scale: f32) -> Row {
    let infinite = bits_of::<E>(f32::INFINITY);
    let mut row = Row::default();
    for (at, middle) in e2m1::MIDDLES.into_iter().enumerate() {
        let first = first_magnitude(bits_of::<E>(middle * scale), infinite, |bits| {
            e2m1::passes(E::of_magnitude_bits(bits.into()) / scale, at)
        });
        row.0[at] = first as i16 - 1;
    }
    row
}

/// The bits of the 16-bit element nearest to a magnitude.
fn bits_of<E: Source>(magnitude: f32) -> u16 {
    let bits: u32 = E::from_f32(magnitude).magnitude_bits().into();
    bits as u16
}
