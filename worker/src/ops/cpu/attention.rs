//! Causal attention, blockwise over keys, without the masked half.
//!
//! Keys are taken in blocks of [`KEY_BLOCK`] that start at multiples of it, whatever rows are computed together, so a
//! row's bits depend on itself and on what it sees alone. For each block a row keeps its maximum so far, the sum of
//! weights and the weighted values under that maximum (FlashAttention, arXiv 2205.14135).

use rayon::prelude::*;

use super::gemm::{
    Begin, KernelElement, LeftLayout, Matrix, MicroKernel, PackFrom, PackedElement, RightLayout, WithKernel,
};
use super::scratch::Scratch;
use super::softmax::{largest, rescale, weights, write_quotients};
use crate::ops::backend::AttentionShape;
use crate::tensor::simd::InstructionSet;

/// Keys of a block, as in torch's CPU kernel; no cut of `k` falls inside of it unless it divides it.
pub(super) const KEY_BLOCK: usize = 512;
/// Rows of a tile, at most.
const TILE_ROWS: usize = 64;

/// One call of attention; the layouts of its operands are those of [`crate::ops::Backend::attention`].
pub(super) struct Attention<'a, E> {
    pub(super) q: &'a [E],
    pub(super) k: &'a [E],
    pub(super) v: &'a [E],
    pub(super) shape: AttentionShape,
    pub(super) out: &'a mut [E],
    pub(super) scratch: &'a Scratch,
    pub(super) set: InstructionSet,
}

impl<E: KernelElement> WithKernel<E> for Attention<'_, E> {
    type Output = ();

    fn run<K: MicroKernel>(self, kernel: K)
    where
        K::Packed: PackFrom<E>,
    {
        let shape = self.shape;
        let (keys, values) = (RightLayout::new::<K>(shape.head_dim), RightLayout::new::<K>(shape.seq));
        let key_length = keys.length::<K>(shape.seq);
        let value_length = values.length::<K>(shape.head_dim);
        let heads = shape.batch * shape.kv_heads;
        let mut packed_keys = self.scratch.take::<K::Packed>(heads * key_length);
        let mut packed_values = self.scratch.take::<K::Packed>(heads * value_length);
        let packed = packed_keys.par_chunks_mut(key_length).zip(packed_values.par_chunks_mut(value_length));
        packed.enumerate().for_each(|(index, (packed_keys, packed_values))| {
            let keys_of_head =
                head(self.k, &shape, (index / shape.kv_heads, index % shape.kv_heads), shape.kv_heads);
            for (panel, packed) in packed_keys.chunks_mut(keys.panel_length()).enumerate() {
                RightLayout::pack_from_rows::<K, E>(keys_of_head, panel, packed);
            }
            let values_of_head =
                head(self.v, &shape, (index / shape.kv_heads, index % shape.kv_heads), shape.kv_heads);
            for (panel, packed) in packed_values.chunks_mut(values.panel_length()).enumerate() {
                RightLayout::pack_from_columns::<K, E>(values_of_head, panel, packed);
            }
        });
        let call = Call {
            kernel,
            shape,
            q: self.q,
            keys: &packed_keys,
            values: &packed_values,
            layouts: (keys, values),
            scratch: self.scratch,
            set: self.set,
        };
        call.run(self.out);
    }
}

/// The rows of one head of one sequence.
fn head<'a, E>(
    elements: &'a [E],
    shape: &AttentionShape,
    (sequence, head): (usize, usize),
    heads: usize,
) -> Matrix<'a, E> {
    let stride = heads * shape.head_dim;
    Matrix {
        elements: &elements[sequence * shape.seq * stride + head * shape.head_dim..],
        rows: shape.seq,
        columns: shape.head_dim,
        stride,
    }
}

/// What all tiles share.
struct Call<'a, K: MicroKernel, E> {
    kernel: K,
    shape: AttentionShape,
    q: &'a [E],
    keys: &'a [K::Packed],
    values: &'a [K::Packed],
    layouts: (RightLayout, RightLayout),
    scratch: &'a Scratch,
    set: InstructionSet,
}

/// Some rows of one query head, with what they have gathered so far.
struct Tile<'a, K: MicroKernel> {
    /// First row, within its sequence.
    first: usize,
    rows: usize,
    /// The packed queries.
    queries: &'a [K::Packed],
    /// `[rows, KEY_BLOCK]`.
    scores: &'a mut [f32],
    /// The packed weights of the current block.
    weights: &'a mut [K::Packed],
    /// `[rows, head_dim]`, rows a multiple of the kernel's columns wide.
    gathered: &'a mut [f32],
    /// Largest scaled score of each row so far.
    maxima: [f32; TILE_ROWS],
    /// Sum of each row's weights so far.
    sums: [f32; TILE_ROWS],
}

impl<K: MicroKernel, E: KernelElement> Call<'_, K, E>
where
    K::Packed: PackFrom<E>,
{
    /// Columns of a row of gathered values.
    fn gathered_width(&self) -> usize {
        self.shape.head_dim.next_multiple_of(K::COLUMNS)
    }

    fn run(&self, out: &mut [E]) {
        let width = self.shape.heads * self.shape.head_dim;
        let tile_rows = TILE_ROWS / K::ROWS * K::ROWS;
        out.par_chunks_mut(self.shape.seq * width).enumerate().for_each(|(sequence, out)| {
            out.par_chunks_mut(tile_rows * width).enumerate().for_each(|(tile, out)| {
                self.run_rows(sequence, tile * tile_rows, out);
            });
        });
    }

    /// All heads of the rows that `out` holds, the first of which is row `first` of its sequence.
    fn run_rows(&self, sequence: usize, first: usize, out: &mut [E]) {
        let width = self.shape.heads * self.shape.head_dim;
        let rows = out.len() / width;
        let padded = rows.next_multiple_of(K::ROWS);
        let query_layout = LeftLayout::new::<K>(rows, self.shape.head_dim);
        let mut queries = self.scratch.take::<K::Packed>(query_layout.length::<K>());
        let mut weights = self.scratch.take::<K::Packed>(LeftLayout::new::<K>(rows, KEY_BLOCK).length::<K>());
        let mut scores = self.scratch.take::<f32>(padded * KEY_BLOCK);
        let mut gathered = self.scratch.take::<f32>(padded * self.gathered_width());
        for index in 0..self.shape.heads {
            let source = head(self.q, &self.shape, (sequence, index), self.shape.heads);
            query_layout.pack::<K, E>(source, first, &mut queries);
            gathered.fill(0.0);
            let mut tile = Tile::<K> {
                first,
                rows,
                queries: &queries,
                scores: &mut scores,
                weights: &mut weights,
                gathered: &mut gathered,
                maxima: [f32::NEG_INFINITY; TILE_ROWS],
                sums: [0.0; TILE_ROWS],
            };
            let kv_head = sequence * self.shape.kv_heads + index / self.shape.group();
            self.gather(&mut tile, kv_head);
            for (row, out) in out.chunks_mut(width).enumerate() {
                let gathered = &tile.gathered[row * self.gathered_width()..][..self.shape.head_dim];
                let out = &mut out[index * self.shape.head_dim..][..self.shape.head_dim];
                write_quotients(self.set, gathered, tile.sums[row], out);
            }
        }
    }

    /// Goes over the blocks of keys that any row of the tile sees.
    fn gather(&self, tile: &mut Tile<'_, K>, kv_head: usize) {
        let (key_layout, value_layout) = self.layouts;
        let key_length = key_layout.length::<K>(self.shape.seq);
        let value_length = value_layout.length::<K>(self.shape.head_dim);
        let keys = &self.keys[kv_head * key_length..][..key_length];
        let values = &self.values[kv_head * value_length..][..value_length];
        let first_block = self.shape.first_seen(tile.first) / KEY_BLOCK;
        for start in (first_block * KEY_BLOCK..tile.first + tile.rows).step_by(KEY_BLOCK) {
            self.score(tile, start, keys);
            self.weigh(tile, start);
            self.add_values(tile, start, values);
        }
    }

    /// `queries · keysᵀ` for the keys from `start` on, except where no row of a panel sees any.
    fn score(&self, tile: &mut Tile<'_, K>, start: usize, keys: &[K::Packed]) {
        let layout = LeftLayout::new::<K>(tile.rows, self.shape.head_dim);
        let panels = keys.chunks(self.layouts.0.panel_length()).enumerate();
        let first = start / K::COLUMNS;
        for (panel, keys) in panels.skip(first).take(KEY_BLOCK / K::COLUMNS) {
            let column = (panel - first) * K::COLUMNS;
            for (row_panel, scores) in tile.scores.chunks_mut(K::ROWS * KEY_BLOCK).enumerate() {
                let last_row = tile.first + row_panel * K::ROWS + K::ROWS - 1;
                if start + column > last_row {
                    continue;
                }
                for (block, keys) in keys.chunks(K::Packed::BLOCK * K::COLUMNS).enumerate() {
                    let queries = layout.block::<K>(tile.queries, row_panel, block);
                    let sums = (&mut scores[column..], KEY_BLOCK);
                    self.kernel.accumulate(queries, keys, Begin::of_block(block), sums);
                }
            }
        }
    }

    /// Turns scores into weights, rounded to the model's type, and brings what was gathered under the new maxima.
    fn weigh(&self, tile: &mut Tile<'_, K>, start: usize) {
        let layout = LeftLayout::new::<K>(tile.rows, KEY_BLOCK);
        let zero = E::from_f32(0.0);
        let mut row_weights = [zero; KEY_BLOCK];
        for row in 0..tile.rows.next_multiple_of(K::ROWS) {
            let place = tile.first + row;
            let last = (place + 1).min(start + KEY_BLOCK).saturating_sub(start);
            let seen = self.shape.first_seen(place).saturating_sub(start)..last;
            row_weights.fill(zero);
            if row < tile.rows && !seen.is_empty() {
                let scores = &tile.scores[row * KEY_BLOCK..][seen.clone()];
                let maximum = tile.maxima[row].max(largest(self.set, scores, self.shape.scale));
                let sum = weights(self.set, scores, self.shape.scale, maximum, &mut row_weights[seen]);
                let width = self.gathered_width();
                let gathered = &mut tile.gathered[row * width..][..width];
                tile.sums[row] =
                    sum + rescale(self.set, gathered, tile.sums[row], tile.maxima[row] - maximum);
                tile.maxima[row] = maximum;
            }
            layout.pack_row::<K, E>(&row_weights, tile.weights, row);
        }
    }

    /// Adds `weights · values` for the keys from `start` on.
    fn add_values(&self, tile: &mut Tile<'_, K>, start: usize, values: &[K::Packed]) {
        let layout = LeftLayout::new::<K>(tile.rows, KEY_BLOCK);
        let width = self.gathered_width();
        for (panel, values) in values.chunks(self.layouts.1.panel_length()).enumerate() {
            for (row_panel, gathered) in tile.gathered.chunks_mut(K::ROWS * width).enumerate() {
                let end = (tile.first + (row_panel + 1) * K::ROWS).min(self.shape.seq).min(start + KEY_BLOCK);
                if end <= start {
                    continue;
                }
                let seen = start * K::COLUMNS..end.next_multiple_of(K::GROUP) * K::COLUMNS;
                for (block, values) in values[seen].chunks(K::Packed::BLOCK * K::COLUMNS).enumerate() {
                    let weights = layout.block::<K>(tile.weights, row_panel, block);
                    let sums = (&mut gathered[panel * K::COLUMNS..], width);
                    self.kernel.accumulate(weights, values, Begin::Held, sums);
                }
            }
        }
    }
}
