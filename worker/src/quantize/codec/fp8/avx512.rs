//! FP8 codes of bf16 elements with AVX-512 F, BW and VBMI: 64 at once, by a table of the octave's 128 mantissas.

use std::arch::x86_64::*;

use super::Stores;
use super::octave::{AHEAD, GROUP, Octave};
use crate::tensor::prefetch::prefetch;

/// The lower bytes of 64 words in two vectors.
static LOWER: [u8; GROUP] = every_second_byte(0);
/// The upper bytes of 64 words in two vectors.
static UPPER: [u8; GROUP] = every_second_byte(1);

/// Whether this CPU has the instructions beyond those of an `InstructionSet` of AVX-512.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512vbmi")
}

/// Writes the codes of whole groups of finite bf16 elements, given by their bits; returns how many elements that were.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn encode(octave: &Octave, stores: Stores, source: &[u16], codes: &mut [u8]) -> usize {
    let groups = source.as_chunks::<GROUP>().0;
    let codes = codes.as_chunks_mut::<GROUP>().0;
    let (lower, upper) = (load(&LOWER), load(&UPPER));
    let (table, _) = octave.table.as_chunks::<GROUP>();
    let table = (load(&table[0]), load(&table[1]));
    let sign = _mm512_set1_epi8(i8::MIN);
    for (at, group) in groups.iter().enumerate() {
        prefetch(group, AHEAD);
        let (first, second) = load_words(group);
        if !are_normal(octave, first, second) {
            octave.encode_any(group, &mut codes[at]);
            continue;
        }
        // The exponent at the place of the code's, with the upper mantissa bits behind it; the table makes up for those.
        let (first_octave, second_octave) = (_mm512_srli_epi16::<4>(first), _mm512_srli_epi16::<4>(second));
        let octaves = _mm512_permutex2var_epi8(first_octave, lower, second_octave);
        let mantissas = _mm512_permutex2var_epi8(first, lower, second);
        let passed = _mm512_permutex2var_epi8(table.0, mantissas, table.1);
        let signs = _mm512_permutex2var_epi8(first, upper, second);
        let code = _mm512_ternarylogic_epi32::<0xf8>(_mm512_add_epi8(octaves, passed), signs, sign);
        let target = codes[at].as_mut_ptr().cast::<__m512i>();
        match stores {
            // SAFETY: the group has 64 codes, the address was just found to be a multiple of 64, and the fence below
            // comes before anyone is told of the codes.
            Stores::Streamed if target.is_aligned() => unsafe { _mm512_stream_si512(target, code) },
            // SAFETY: the group has 64 codes, and unaligned stores are asked for.
            _ => unsafe { _mm512_storeu_si512(target, code) },
        }
    }
    if stores == Stores::Streamed {
        _mm_sfence();
    }
    groups.len() * GROUP
}

/// Whether the magnitudes of all elements are in the normal range.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn are_normal(octave: &Octave, first: __m512i, second: __m512i) -> bool {
    let normal = _mm512_set1_epi16(octave.normal as i16);
    let span = _mm512_set1_epi16((octave.saturated - octave.normal) as i16);
    let sign = _mm512_set1_epi16(i16::MIN);
    // Below the range the difference wraps around to a large one.
    let first = _mm512_sub_epi16(_mm512_andnot_si512(sign, first), normal);
    let second = _mm512_sub_epi16(_mm512_andnot_si512(sign, second), normal);
    _mm512_cmpgt_epu16_mask(_mm512_max_epu16(first, second), span) == 0
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(bytes: &[u8; GROUP]) -> __m512i {
    // SAFETY: there are 64 bytes, and unaligned loads are asked for.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_words(group: &[u16; GROUP]) -> (__m512i, __m512i) {
    let (halves, _) = group.as_chunks::<{ GROUP / 2 }>();
    // SAFETY: either half has 64 bytes, and unaligned loads are asked for.
    unsafe { (_mm512_loadu_si512(halves[0].as_ptr().cast()), _mm512_loadu_si512(halves[1].as_ptr().cast())) }
}

const fn every_second_byte(first: u8) -> [u8; GROUP] {
    let mut bytes = [0; GROUP];
    let mut at = 0;
    while at < GROUP {
        bytes[at] = 2 * at as u8 + first;
        at += 1;
    }
    bytes
}
