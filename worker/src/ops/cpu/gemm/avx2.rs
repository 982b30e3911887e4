//! The `f32` kernel of AVX2 with FMA: fused multiply-add into 8 sums.

use std::arch::x86_64::{
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::kernel::{Begin, MicroKernel, PackedElement, checked_groups};

/// Lanes of a register.
const LANES: usize = 8;
/// With two registers of columns, 12 of the 16 registers hold sums.
const ROWS: usize = 6;

/// Multiplies `f32` on CPUs with AVX2 and FMA; the bits of [`super::Avx512`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The kernel, if this CPU has its instructions.
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

impl MicroKernel for Avx2 {
    type Packed = f32;
    const ROWS: usize = ROWS;
    const COLUMNS: usize = 2 * LANES;
    const GROUP: usize = 1;

    #[inline(always)]
    fn accumulate(self, left: &[f32], right: &[f32], begin: Begin, (sums, stride): (&mut [f32], usize)) {
        let groups = checked_groups::<Self>(left, right, sums, stride);
        // SAFETY: `detect` found the instructions; `checked_groups` found the slices long enough for every access.
        unsafe { accumulate(groups, left.as_ptr(), right.as_ptr(), begin, (sums.as_mut_ptr(), stride)) }
    }
}

/// # Safety
/// `left` holds `ROWS` rows of `STRIDE` elements, `right` holds `groups` pairs of registers, and `sums` a tile
/// whose rows are its second part apart.
#[target_feature(enable = "avx2,fma")]
unsafe fn accumulate(
    groups: usize,
    left: *const f32,
    right: *const f32,
    begin: Begin,
    sums: (*mut f32, usize),
) {
    let mut tile = [[_mm256_setzero_ps(); 2]; ROWS];
    if begin == Begin::Held {
        for (row, tile) in tile.iter_mut().enumerate() {
            for (half, sum) in tile.iter_mut().enumerate() {
                // SAFETY: inside the tile.
                *sum = unsafe { _mm256_loadu_ps(sums.0.add(row * sums.1 + half * LANES)) };
            }
        }
    }
    for group in 0..groups {
        let columns = [0, 1].map(|half| {
            // SAFETY: `group` is less than `groups`.
            unsafe { _mm256_loadu_ps(right.add((2 * group + half) * LANES)) }
        });
        for (row, tile) in tile.iter_mut().enumerate() {
            // SAFETY: inside the row.
            let factor = _mm256_set1_ps(unsafe { *left.add(row * f32::STRIDE + group) });
            for (sum, columns) in tile.iter_mut().zip(columns) {
                *sum = _mm256_fmadd_ps(factor, columns, *sum);
            }
        }
    }
    for (row, tile) in tile.iter().enumerate() {
        for (half, sum) in tile.iter().enumerate() {
            // SAFETY: inside the tile.
            unsafe { _mm256_storeu_ps(sums.0.add(row * sums.1 + half * LANES), *sum) };
        }
    }
}
