//! The `f32` kernel of AVX-512: fused multiply-add into 16 sums.

use std::arch::x86_64::{
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

use super::kernel::{Begin, MicroKernel, PackedElement, checked_groups};

/// Lanes of a register.
const LANES: usize = 16;
/// With two registers of columns, 28 of the 32 registers hold sums.
const ROWS: usize = 14;

/// Multiplies `f32` on CPUs with AVX-512; the bits of [`super::Avx2`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The kernel, if this CPU has its instructions.
    pub(crate) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

impl MicroKernel for Avx512 {
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
#[target_feature(enable = "avx512f")]
unsafe fn accumulate(
    groups: usize,
    left: *const f32,
    right: *const f32,
    begin: Begin,
    sums: (*mut f32, usize),
) {
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
        let columns = [0, 1].map(|half| {
            // SAFETY: `group` is less than `groups`.
            unsafe { _mm512_loadu_ps(right.add((2 * group + half) * LANES)) }
        });
        for (row, tile) in tile.iter_mut().enumerate() {
            // SAFETY: inside the row.
            let factor = _mm512_set1_ps(unsafe { *left.add(row * f32::STRIDE + group) });
            for (sum, columns) in tile.iter_mut().zip(columns) {
                *sum = _mm512_fmadd_ps(factor, columns, *sum);
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
