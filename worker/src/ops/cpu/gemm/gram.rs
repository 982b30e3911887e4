//! `xᵀ · x` over tokens.
//!
//! Only tiles that touch the upper triangle are computed: the other half is the same to the bit, since each sum is one chain
//! over tokens in order and products commute.

use rayon::prelude::*;

use super::kernel::{Begin, KernelElement, MicroKernel, PackFrom, PackedElement};
use super::pack::{LeftLayout, Matrix, RightLayout};
use crate::ops::cpu::scratch::Scratch;

/// Panels of rows that one task takes: their operands stay in the second-level cache. So many of any kernel hold a multiple of
/// 8 rows, which are packed at once.
pub(super) const PANELS: usize = 4;
/// Columns and rows of a square that is mirrored at a time.
const STRIPE: usize = 64;

/// Adds `xᵀ · x` of `x` `[tokens, columns]` to the upper triangle of `sums` `[columns, columns]`, on the rayon pool that
/// it is called in. Below the diagonal `sums` may hold anything afterwards.
pub(crate) fn add_gram<K: MicroKernel, E: KernelElement>(
    kernel: K,
    x: &[E],
    columns: usize,
    sums: &mut [f32],
    scratch: &Scratch,
) where
    K::Packed: PackFrom<E>,
{
    let tokens = x.len() / columns;
    if tokens == 0 {
        return;
    }
    let layout = RightLayout::new::<K>(tokens);
    let mut right = scratch.take::<K::Packed>(layout.length::<K>(columns));
    right.par_chunks_mut(layout.panel_length()).enumerate().for_each(|(panel, packed)| {
        RightLayout::pack_from_columns::<K, E>(Matrix::dense(x, columns), panel, packed);
    });
    let right: &[K::Packed] = &right;
    let height = PANELS * K::ROWS;
    sums.par_chunks_mut(height * columns).enumerate().for_each(|(task, sums)| {
        let (first, rows) = (task * height, sums.len() / columns);
        let rows_of = LeftLayout::new::<K>(rows, tokens);
        let mut left = scratch.take::<K::Packed>(rows_of.length::<K>());
        rows_of.pack_from_right::<K>((right, layout), first, &mut left);
        let mut tile = scratch.take::<f32>(K::ROWS * K::COLUMNS);
        let begin = first / K::COLUMNS;
        let panels = right.chunks(layout.panel_length()).enumerate().skip(begin);
        for (panel, right) in panels {
            let at = panel * K::COLUMNS..((panel + 1) * K::COLUMNS).min(columns);
            for (row_panel, sums) in sums.chunks_mut(K::ROWS * columns).enumerate() {
                if at.end <= first + row_panel * K::ROWS {
                    continue;
                }
                let blocks = right.chunks(K::Packed::BLOCK * K::COLUMNS).enumerate();
                let operands =
                    blocks.map(|(block, right)| (rows_of.block::<K>(&left, row_panel, block), right));
                if at.len() == K::COLUMNS && sums.len() == K::ROWS * columns {
                    for (left, right) in operands {
                        kernel.accumulate(left, right, Begin::Held, (&mut sums[at.start..], columns));
                    }
                    continue;
                }
                tile.fill(0.0);
                for (tile, sums) in tile.chunks_mut(K::COLUMNS).zip(sums.chunks(columns)) {
                    tile[..at.len()].copy_from_slice(&sums[at.clone()]);
                }
                for (left, right) in operands {
                    kernel.accumulate(left, right, Begin::Held, (&mut tile, K::COLUMNS));
                }
                for (tile, sums) in tile.chunks(K::COLUMNS).zip(sums.chunks_mut(columns)) {
                    sums[at.clone()].copy_from_slice(&tile[..at.len()]);
                }
            }
        }
    });
}

/// Copies what is above the diagonal of a square matrix to below it.
pub(crate) fn mirror(sums: &mut [f32], columns: usize) {
    // Square by square, so that neither side walks through all of memory.
    for top in (0..columns).step_by(STRIPE) {
        for left in (top..columns).step_by(STRIPE) {
            for row in top..(top + STRIPE).min(columns) {
                for column in left.max(row + 1)..(left + STRIPE).min(columns) {
                    sums[column * columns + row] = sums[row * columns + column];
                }
            }
        }
    }
}
