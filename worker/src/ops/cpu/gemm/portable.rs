//! The `f32` kernel of every CPU: product, then sum, each rounded.

use super::kernel::{Begin, MicroKernel, PackedElement, checked_groups};

const ROWS: usize = 4;
const COLUMNS: usize = 8;

/// Multiplies `f32` on any CPU.
///
/// It does not fuse product and sum, because a CPU without the instruction would take a library call for each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

impl MicroKernel for Portable {
    type Packed = f32;
    const ROWS: usize = ROWS;
    const COLUMNS: usize = COLUMNS;
    const GROUP: usize = 1;

    fn accumulate(self, left: &[f32], right: &[f32], begin: Begin, (sums, stride): (&mut [f32], usize)) {
        let groups = checked_groups::<Self>(left, right, sums, stride);
        let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &left[row * f32::STRIDE..][..groups]);
        let mut tile = [[0f32; COLUMNS]; ROWS];
        if begin == Begin::Held {
            for (tile, sums) in tile.iter_mut().zip(sums.chunks(stride)) {
                tile.copy_from_slice(&sums[..COLUMNS]);
            }
        }
        for (group, columns) in right.as_chunks::<COLUMNS>().0.iter().enumerate() {
            for (tile, row) in tile.iter_mut().zip(rows) {
                for (sum, column) in tile.iter_mut().zip(columns) {
                    *sum += row[group] * column;
                }
            }
        }
        for (tile, sums) in tile.iter().zip(sums.chunks_mut(stride)) {
            sums[..COLUMNS].copy_from_slice(tile);
        }
    }
}
