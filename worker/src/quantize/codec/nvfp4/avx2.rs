//! NVFP4 codes of 16-bit elements with AVX2: one piece of 16 elements a vector, compared with all seven steps.

use std::arch::x86_64::*;

use super::steps::{GROUP, PIECE, PIECES, Row};

/// The largest magnitude of every piece, as bits.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn largest(group: &[u16; GROUP]) -> [u16; PIECES] {
    let all = _mm256_set1_epi16(i16::MAX);
    let (pieces, _) = group.as_chunks::<PIECE>();
    let mut largest = [0; PIECES];
    for (largest, piece) in largest.iter_mut().zip(pieces) {
        // There is an instruction for the smallest of eight words, so the complement is taken.
        let complement = _mm256_andnot_si256(load(piece), all);
        let halves =
            _mm_min_epu16(_mm256_castsi256_si128(complement), _mm256_extracti128_si256::<1>(complement));
        *largest = i16::MAX as u16 - _mm_extract_epi16::<0>(_mm_minpos_epu16(halves)) as u16;
    }
    largest
}

/// The codes of a group, two a byte, each piece by its own row of steps.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn encode(
    rows: &[Row; 128],
    scales: &[u8; PIECES],
    group: &[u16; GROUP],
    codes: &mut [u8; GROUP / 2],
) {
    // Packing works on 128-bit lanes: first all lower halves of the pieces, then all upper ones.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let (pieces, _) = group.as_chunks::<PIECE>();
    let piece = |at: usize| bytes(&rows[usize::from(scales[at] & 0x7f)], &pieces[at]);
    for (quad, codes) in codes.as_chunks_mut::<{ 4 * PIECE / 2 }>().0.iter_mut().enumerate() {
        let first = _mm256_packus_epi32(piece(4 * quad), piece(4 * quad + 1));
        let second = _mm256_packus_epi32(piece(4 * quad + 2), piece(4 * quad + 3));
        let packed = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(first, second), order);
        // SAFETY: `codes` has 32 bytes, and unaligned stores are asked for.
        unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), packed) };
    }
}

/// The codes of a piece, two in each 32-bit word.
#[target_feature(enable = "avx2")]
#[inline]
fn bytes(row: &Row, piece: &[u16; PIECE]) -> __m256i {
    let bits = load(piece);
    let magnitude = _mm256_and_si256(bits, _mm256_set1_epi16(i16::MAX));
    // A comparison that holds gives −1: everything here has the other sign than the code.
    let mut negated = _mm256_setzero_si256();
    for step in &row.0[..7] {
        negated = _mm256_add_epi16(negated, _mm256_cmpgt_epi16(magnitude, _mm256_set1_epi16(*step)));
    }
    // With the sign bit turned, everything below zero is positive, and −0.0 is zero.
    let turned = _mm256_xor_si256(bits, _mm256_set1_epi16(i16::MIN));
    let negative = _mm256_cmpgt_epi16(turned, _mm256_setzero_si256());
    let negated = _mm256_add_epi16(negated, _mm256_and_si256(negative, _mm256_set1_epi16(-8)));
    _mm256_madd_epi16(negated, _mm256_set1_epi32((-16 << 16) | 0xffff))
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(piece: &[u16; PIECE]) -> __m256i {
    // SAFETY: a piece has 32 bytes, and unaligned loads are asked for.
    unsafe { _mm256_loadu_si256(piece.as_ptr().cast()) }
}
