//! The bf16 kernel of AVX512-BF16: `VDPBF16PS` adds two products to each of 16 sums.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
    _mm512_setzero_ps, _mm512_storeu_ps,
};

use half::bf16;

use super::kernel::{Begin, MicroKernel, PackedElement, checked_groups};

/// Lanes of a register.
const LANES: usize = 16;
/// With two registers of columns, 28 of the 32 registers hold sums.
const ROWS: usize = 14;

/// Multiplies bf16 pairs into `f32` sums on CPUs with AVX512-BF16.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512Bf16(());

impl Avx512Bf16 {
    /// The kernel, if this CPU has its instructions.
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f")).then_some(Self(()))
    }
}

impl MicroKernel for Avx512Bf16 {
    type Packed = bf16;
    const ROWS: usize = ROWS;
    const COLUMNS: usize = 2 * LANES;
    const GROUP: usize = 2;

    #[inline(always)]
    fn accumulate(self, left: &[bf16], right: &[bf16], begin: Begin, (sums, stride): (&mut [f32], usize)) {
        let groups = checked_groups::<Self>(left, right, sums, stride);
        // SAFETY: `detect` found the instructions; `checked_groups` found the slices long enough for every access.
        unsafe {
            accumulate(
                groups,
                left.as_ptr().cast(),
                right.as_ptr().cast(),
                begin,
                (sums.as_mut_ptr(), stride),
            )
        }
    }
}

/// # Safety
/// `left` holds `ROWS` rows of `STRIDE / 2` pairs, `right` holds `groups` pairs of registers, and `sums` a tile
/// whose rows are its second part apart.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn accumulate(
    groups: usize,
    left: *const i32,
    right: *const __m512i,
    begin: Begin,
    sums: (*mut f32, usize),
) {
    const STRIDE: usize = bf16::STRIDE / 2;
    let mut tile = [[_mm512_setzero_ps(); 2]; ROWS];
    if begin == Begin::Held {
        for (row, tile) in tile.iter_mut().enumerate() {
            for (half, sum) in tile.iter_mut().enumerate() {
                // SAFETY: inside the tile.
                *sum = unsafe { _mm512_loadu_ps(sums.0.add(row * sums.1 + half * LANES)) };
            }
        }
    }
    for group in 0..groups {
        // SAFETY: `group` is less than `groups`.
        let columns = unsafe { [load(right.add(2 * group)), load(right.add(2 * group + 1))] };
        for (row, tile) in tile.iter_mut().enumerate() {
            // SAFETY: inside the row.
            let pair = _mm512_set1_epi32(unsafe { *left.add(row * STRIDE + group) });
            for (sum, columns) in tile.iter_mut().zip(columns) {
                *sum = multiply(*sum, pair, columns);
            }
        }
    }
    for (row, tile) in tile.iter().enumerate() {
        for (half, sum) in tile.iter().enumerate() {
            // SAFETY: inside the tile.
            unsafe { _mm512_storeu_ps(sums.0.add(row * sums.1 + half * LANES), *sum) };
        }
    }
}

/// # Safety
/// `from` is a register's worth of memory.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(from: *const __m512i) -> __m512i {
    // SAFETY: the caller's word.
    unsafe { _mm512_loadu_si512(from) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply(sum: __m512, pair: __m512i, columns: __m512i) -> __m512 {
    // SAFETY: both are 512 bits without invalid patterns.
    let [pair, columns]: [__m512bh; 2] = unsafe { std::mem::transmute([pair, columns]) };
    _mm512_dpbf16_ps(sum, pair, columns)
}
