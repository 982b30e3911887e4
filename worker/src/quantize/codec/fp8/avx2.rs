//! FP8 codes of bf16 elements with AVX2: 32 at once, by comparing the mantissa with the octave's eight steps.

use std::arch::x86_64::*;

use super::octave::{AHEAD, GROUP, Octave};
use crate::tensor::prefetch::prefetch;

/// Elements of one vector of 16-bit words.
const WORDS: usize = 16;

/// Writes the codes of whole groups of finite bf16 elements, given by their bits; returns how many elements that were.
#[target_feature(enable = "avx2")]
pub(super) fn encode(octave: &Octave, source: &[u16], codes: &mut [u8]) -> usize {
    let groups = source.as_chunks::<GROUP>().0;
    let codes = codes.as_chunks_mut::<GROUP>().0;
    for (at, group) in groups.iter().enumerate() {
        prefetch(group, AHEAD);
        let (words, _) = group.as_chunks::<WORDS>();
        let [a, b, c, d] = [load(&words[0]), load(&words[1]), load(&words[2]), load(&words[3])];
        let far = _mm256_max_epu16(
            _mm256_max_epu16(distance(octave, a), distance(octave, b)),
            _mm256_max_epu16(distance(octave, c), distance(octave, d)),
        );
        let span = _mm256_set1_epi16((octave.saturated - octave.normal) as i16);
        // There is no unsigned comparison: what saturating subtraction leaves is beyond the span.
        let beyond = _mm256_subs_epu16(far, span);
        if _mm256_testz_si256(beyond, beyond) == 0 {
            octave.encode_any(group, &mut codes[at]);
            continue;
        }
        let (halves, _) = codes[at].as_chunks_mut::<{ GROUP / 2 }>();
        store(&mut halves[0], encode_half(octave, a, b));
        store(&mut halves[1], encode_half(octave, c, d));
    }
    groups.len() * GROUP
}

/// The codes of 32 elements in the normal range.
#[target_feature(enable = "avx2")]
#[inline]
fn encode_half(octave: &Octave, a: __m256i, b: __m256i) -> __m256i {
    let (byte, exponent) = (_mm256_set1_epi16(0xff), _mm256_set1_epi16(0xf8));
    let low = _mm256_packus_epi16(_mm256_and_si256(a, byte), _mm256_and_si256(b, byte));
    // The exponent, modulo 32, at the place of the code's.
    let octaves = _mm256_packus_epi16(
        _mm256_and_si256(_mm256_srli_epi16::<4>(a), exponent),
        _mm256_and_si256(_mm256_srli_epi16::<4>(b), exponent),
    );
    let mantissas = _mm256_and_si256(low, _mm256_set1_epi8(i8::MAX));
    let mut codes = _mm256_add_epi8(octaves, _mm256_set1_epi8(octave.base as i8));
    for step in &octave.steps {
        // A comparison that holds gives −1.
        codes = _mm256_sub_epi8(codes, _mm256_cmpgt_epi8(mantissas, _mm256_set1_epi8(*step)));
    }
    // Signed saturation keeps the sign of a word in its byte.
    let signs = _mm256_and_si256(_mm256_packs_epi16(a, b), _mm256_set1_epi8(i8::MIN));
    // Packing works on 128-bit lanes: the middle quarters have changed places.
    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_or_si256(codes, signs))
}

/// How far above the start of the normal range magnitudes are; wraps around to a large number below it.
#[target_feature(enable = "avx2")]
#[inline]
fn distance(octave: &Octave, bits: __m256i) -> __m256i {
    let magnitude = _mm256_and_si256(bits, _mm256_set1_epi16(i16::MAX));
    _mm256_sub_epi16(magnitude, _mm256_set1_epi16(octave.normal as i16))
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(words: &[u16; WORDS]) -> __m256i {
    // SAFETY: there are 32 bytes, and unaligned loads are asked for.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(codes: &mut [u8; GROUP / 2], bytes: __m256i) {
    // SAFETY: there are 32 bytes, and unaligned stores are asked for.
    unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), bytes) };
}
