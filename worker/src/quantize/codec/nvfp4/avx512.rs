//! NVFP4 codes of 16-bit elements with AVX-512 F, BW and VL: two pieces of 16 elements a vector.
//!
//! The seven steps of a piece lie in one 128-bit lane, so a permutation fetches for every element the step that it must be
//! compared with next: three comparisons find the code, as in a search by halves.

use std::arch::x86_64::*;

use super::steps::{GROUP, PIECE, PIECES, Row};

/// The largest magnitude of every piece, as bits.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) fn largest(group: &[u16; GROUP]) -> [u16; PIECES] {
    let sign = _mm512_set1_epi16(i16::MIN);
    let pair = |at: usize| _mm512_andnot_si512(sign, load(group, at));
    // Each round halves the words that a piece still has, and puts twice as many pieces in a vector.
    let lanes = |at: usize| {
        let (a, b) = (pair(at), pair(at + 1));
        _mm512_max_epu16(_mm512_shuffle_i64x2::<0x88>(a, b), _mm512_shuffle_i64x2::<0xdd>(a, b))
    };
    let quads = |at: usize| {
        let (a, b) = (lanes(at), lanes(at + 2));
        _mm512_max_epu16(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
    };
    let (a, b) = (_mm512_castsi512_ps(quads(0)), _mm512_castsi512_ps(quads(4)));
    let even = _mm512_castps_si512(_mm512_shuffle_ps::<0x88>(a, b));
    let odd = _mm512_castps_si512(_mm512_shuffle_ps::<0xdd>(a, b));
    let doubles = _mm512_max_epu16(even, odd);
    let singles = _mm512_max_epu16(doubles, _mm512_rol_epi32::<16>(doubles));
    // Lane i now holds the pieces i, 4 + i, 8 + i, 12 + i.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let words = _mm512_cvtepi32_epi16(_mm512_permutexvar_epi32(order, singles));
    let mut largest = [0; PIECES];
    // SAFETY: `largest` has 32 bytes, and unaligned stores are asked for.
    unsafe { _mm256_storeu_si256(largest.as_mut_ptr().cast(), words) };
    largest
}

/// The codes of a group, two a byte, each piece by its own row of steps.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) fn encode(
    rows: &[Row; 128],
    scales: &[u8; PIECES],
    group: &[u16; GROUP],
    codes: &mut [u8; GROUP / 2],
) {
    // Packing works on 128-bit lanes: lane i gets the bytes of the lanes i of all four vectors.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let row = |piece: usize| &rows[usize::from(scales[piece] & 0x7f)];
    let pair = |at: usize| bytes(load_rows(row(2 * at), row(2 * at + 1)), load(group, at));
    for (quad, codes) in codes.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let first = _mm512_packus_epi32(pair(4 * quad), pair(4 * quad + 1));
        let second = _mm512_packus_epi32(pair(4 * quad + 2), pair(4 * quad + 3));
        let packed = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(first, second));
        // SAFETY: `codes` has 64 bytes, and unaligned stores are asked for.
        unsafe { _mm512_storeu_si512(codes.as_mut_ptr().cast(), packed) };
    }
}

/// The codes of two pieces, two in each 32-bit word.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn bytes(steps: __m512i, bits: __m512i) -> __m512i {
    let one = _mm512_set1_epi16(1);
    // The second piece's steps begin at word 16.
    let second = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi16(16));
    let step = |code: i16| _mm512_or_si512(second, _mm512_set1_epi16(code - 1));
    let magnitude = _mm512_andnot_si512(_mm512_set1_epi16(i16::MIN), bits);
    let step_at = |at| _mm512_permutexvar_epi16(at, steps);
    let passed = |at| _mm512_cmpgt_epi16_mask(magnitude, step_at(at));
    let at = _mm512_mask_blend_epi16(passed(step(4)), step(2), step(6));
    // One step up or down, to the step of an odd code, whose place is the even code before it.
    let at = _mm512_mask_add_epi16(_mm512_sub_epi16(at, one), passed(at), at, one);
    // The last comparison by subtraction, because its result is wanted as a number: 1 where the step is below.
    let last = _mm512_srli_epi16::<15>(_mm512_sub_epi16(step_at(at), magnitude));
    // `last | at & 7`.
    let code = _mm512_ternarylogic_epi32::<0xf8>(last, at, _mm512_set1_epi16(7));
    // As unsigned numbers, the bits of everything below zero are above those of −0.0.
    let negative = _mm512_cmpgt_epu16_mask(bits, _mm512_set1_epi16(i16::MIN));
    let code = _mm512_mask_add_epi16(code, negative, code, _mm512_set1_epi16(8));
    _mm512_madd_epi16(code, _mm512_set1_epi32(16 << 16 | 1))
}

/// Two pieces of a group, from piece `2 * pair` on.
#[target_feature(enable = "avx512f")]
#[inline]
fn load(group: &[u16; GROUP], pair: usize) -> __m512i {
    let (pairs, _) = group.as_chunks::<{ 2 * PIECE }>();
    // SAFETY: the chunk has 64 bytes, and unaligned loads are asked for.
    unsafe { _mm512_loadu_si512(pairs[pair].as_ptr().cast()) }
}

/// The steps of two pieces at the words 0 and 16.
#[target_feature(enable = "avx512f")]
#[inline]
fn load_rows(first: &Row, second: &Row) -> __m512i {
    // SAFETY: a row has 16 bytes and their alignment.
    let (first, second) =
        unsafe { (_mm_load_si128(first.0.as_ptr().cast()), _mm_load_si128(second.0.as_ptr().cast())) };
    _mm512_inserti32x4::<2>(_mm512_castsi128_si512(first), second)
}
