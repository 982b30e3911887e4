//! Operands in the order in which kernels read them.
//!
//! A left panel is `ROWS` rows, cut along `k` into blocks; each row of a block lies in one piece. A right panel is
//! `COLUMNS` columns: for each group of `k`, the group's elements of the first column, of the second, and so on.
//! Missing rows, columns and elements of a group are zeros: their products go to sums that nobody reads, or add zero.

use super::kernel::{Begin, MicroKernel, PackFrom, PackedElement, SQUARE};
use crate::tensor::dtype::Element;
use crate::tensor::prefetch::prefetch_bytes;

/// Rows of a larger row-major matrix: `rows` of them, `stride` apart, `columns` wide.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a, E> {
    /// From the first element to at least the last.
    pub(crate) elements: &'a [E],
    /// Number of rows.
    pub(crate) rows: usize,
    /// Elements of a row.
    pub(crate) columns: usize,
    /// Elements from one row to the next.
    pub(crate) stride: usize,
}

impl<'a, E> Matrix<'a, E> {
    /// A whole matrix of `columns` per row.
    pub(crate) fn dense(elements: &'a [E], columns: usize) -> Self {
        Self { elements, rows: elements.len() / columns, columns, stride: columns }
    }

    /// One row.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &'a [E] {
        &self.elements[row * self.stride..][..self.columns]
    }
}

/// Where the rows of a left operand lie once they are packed.
///
/// Panels follow each other block by block, which is the order in which the driver reads them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeftLayout {
    /// Panels of rows.
    panels: usize,
    /// Elements along `k`, without padding.
    depth: usize,
    /// Blocks of `k`.
    blocks: usize,
}

impl LeftLayout {
    /// The layout of `rows` rows of `depth` elements for kernel `K`.
    pub(crate) fn new<K: MicroKernel>(rows: usize, depth: usize) -> Self {
        Self { panels: rows.div_ceil(K::ROWS), depth, blocks: depth.div_ceil(K::Packed::BLOCK) }
    }

    /// Elements that the rows take.
    pub(crate) fn length<K: MicroKernel>(&self) -> usize {
        self.panels * self.blocks * K::ROWS * K::Packed::STRIDE
    }

    /// One block of one panel of a packed operand.
    #[inline(always)]
    pub(crate) fn block<'a, K: MicroKernel>(
        &self,
        packed: &'a [K::Packed],
        panel: usize,
        block: usize,
    ) -> &'a [K::Packed] {
        let length = K::ROWS * K::Packed::STRIDE;
        &packed[(block * self.panels + panel) * length..][..length]
    }

    /// Multiplies all panels of packed rows with one right panel: `sums` holds a tile for each, one behind the other.
    #[inline(always)]
    pub(crate) fn multiply<K: MicroKernel>(
        &self,
        kernel: K,
        left: &[K::Packed],
        right: &[K::Packed],
        sums: &mut [f32],
    ) {
        for (block, right) in right.chunks(K::Packed::BLOCK * K::COLUMNS).enumerate() {
            for (row_panel, sums) in sums.chunks_mut(K::ROWS * K::COLUMNS).enumerate() {
                let left = self.block::<K>(left, row_panel, block);
                kernel.accumulate(left, right, Begin::of_block(block), (sums, K::COLUMNS));
            }
        }
    }

    /// Packs one row, or zeros where `elements` ends early.
    #[inline(always)]
    pub(crate) fn pack_row<K: MicroKernel, E: Copy>(
        &self,
        elements: &[E],
        packed: &mut [K::Packed],
        row: usize,
    ) where
        K::Packed: PackFrom<E>,
    {
        for block in 0..self.blocks {
            let first = block * K::Packed::BLOCK;
            // A group that `depth` cuts through is filled up with zeros.
            let width = (self.depth - first).min(K::Packed::BLOCK).next_multiple_of(K::GROUP);
            let place = (block * self.panels + row / K::ROWS) * K::ROWS + row % K::ROWS;
            let target = &mut packed[place * K::Packed::STRIDE..][..width];
            let source = elements.get(first..).unwrap_or_default();
            let (filled, padding) = target.split_at_mut(source.len().min(width));
            for (target, source) in filled.iter_mut().zip(source) {
                *target = K::Packed::pack_from(*source);
            }
            padding.fill(K::Packed::from_f32(0.0));
        }
    }

    /// Packs the rows of a matrix from row `first` on; rows past its end, which fill up a panel, are zeros.
    pub(crate) fn pack<K: MicroKernel, E: Copy>(
        &self,
        source: Matrix<'_, E>,
        first: usize,
        packed: &mut [K::Packed],
    ) where
        K::Packed: PackFrom<E>,
    {
        for row in 0..self.panels * K::ROWS {
            let elements = if first + row < source.rows { source.row(first + row) } else { &[] };
            self.pack_row::<K, E>(elements, packed, row);
        }
    }

    /// Packs rows that are the columns of a packed right operand, from column `first` on, which is a multiple of 8.
    ///
    /// # Panics
    /// The right operand ends before them.
    pub(crate) fn pack_from_right<K: MicroKernel>(
        &self,
        (right, layout): (&[K::Packed], RightLayout),
        first: usize,
        packed: &mut [K::Packed],
    ) {
        const { assert!(K::COLUMNS.is_multiple_of(SQUARE) && K::GROUP * size_of::<K::Packed>() == 4) };
        assert!(first.is_multiple_of(SQUARE), "squares of columns would cross panels");
        let (row_length, rows) = (K::COLUMNS * K::GROUP, self.panels * K::ROWS);
        for (block, packed) in packed.chunks_mut(rows * K::Packed::STRIDE).enumerate() {
            let begin = block * K::Packed::BLOCK;
            let groups = (self.depth - begin).min(K::Packed::BLOCK).div_ceil(K::GROUP);
            for start in (0..rows).step_by(SQUARE) {
                let (panel, column) = ((first + start) / K::COLUMNS, (first + start) % K::COLUMNS);
                let targets = &mut packed[start * K::Packed::STRIDE..];
                // Rows that only fill up a panel.
                let Some(source) = right.get(panel * layout.panel..(panel + 1) * layout.panel) else {
                    targets.fill(K::Packed::from_f32(0.0));
                    break;
                };
                let source = &source[begin * K::COLUMNS + column * K::GROUP..];
                let columns = SQUARE.min(rows - start);
                let done = match columns {
                    SQUARE => {
                        K::Packed::turn_groups((source, row_length), (targets, K::Packed::STRIDE), groups)
                    }
                    _ => 0,
                };
                for (column, target) in targets.chunks_mut(K::Packed::STRIDE).take(columns).enumerate() {
                    for group in done..groups {
                        let from = &source[group * row_length + column * K::GROUP..][..K::GROUP];
                        target[group * K::GROUP..][..K::GROUP].copy_from_slice(from);
                    }
                }
            }
        }
    }
}

/// Where the columns of a right operand lie once they are packed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RightLayout {
    /// Elements of a panel.
    panel: usize,
}

impl RightLayout {
    /// The layout of columns of `depth` elements for kernel `K`.
    pub(crate) fn new<K: MicroKernel>(depth: usize) -> Self {
        Self { panel: depth.next_multiple_of(K::GROUP) * K::COLUMNS }
    }

    /// Elements of one panel.
    pub(crate) fn panel_length(&self) -> usize {
        self.panel
    }

    /// Elements that `columns` columns take.
    pub(crate) fn length<K: MicroKernel>(&self, columns: usize) -> usize {
        columns.div_ceil(K::COLUMNS) * self.panel
    }

    /// Packs panel `panel` of the columns that are the rows of `source`: weights `[n, k]`, keys.
    pub(crate) fn pack_from_rows<K: MicroKernel, E: Copy>(
        source: Matrix<'_, E>,
        panel: usize,
        packed: &mut [K::Packed],
    ) where
        K::Packed: PackFrom<E>,
    {
        // Elements of `k` that are carried over at a time, so that their targets stay in the first-level cache.
        const STRETCH: usize = 128;
        let first = panel * K::COLUMNS;
        let columns = source.rows.saturating_sub(first).min(K::COLUMNS);
        if columns < K::COLUMNS || !source.columns.is_multiple_of(K::GROUP) {
            packed.fill(K::Packed::from_f32(0.0));
        }
        for start in (0..source.columns).step_by(STRETCH) {
            let stretch = (source.columns - start).min(STRETCH);
            // Every row lies on pages of its own: no hardware sees what is read next, which is a stretch further, or of the next panel.
            let is_last = start + STRETCH >= source.columns;
            let ahead = if is_last { source.stride * K::COLUMNS - start } else { STRETCH };
            for square in (0..columns).step_by(SQUARE) {
                let row = |column: usize| &source.row(first + column)[start..][..stretch];
                for column in square..(square + SQUARE).min(columns) {
                    prefetch_bytes(row(column).as_ptr().wrapping_add(ahead), STRETCH * size_of::<E>());
                }
                let mut done = 0;
                if K::GROUP == 2 && square + SQUARE <= columns {
                    let rows = std::array::from_fn(|column| row(square + column));
                    let packed = &mut packed[start * K::COLUMNS + square * K::GROUP..];
                    done = K::Packed::pack_pairs(rows, packed, K::COLUMNS * K::GROUP);
                }
                for column in square..(square + SQUARE).min(columns) {
                    Self::pack_column::<K, E>(
                        &row(column)[done..],
                        column,
                        &mut packed[(start + done) * K::COLUMNS..],
                    );
                }
            }
        }
    }

    /// Packs some elements of one column.
    #[inline(always)]
    fn pack_column<K: MicroKernel, E: Copy>(elements: &[E], column: usize, packed: &mut [K::Packed])
    where
        K::Packed: PackFrom<E>,
    {
        let mut targets = packed.chunks_exact_mut(K::COLUMNS * K::GROUP);
        let groups = elements.chunks_exact(K::GROUP);
        let rest = groups.remainder();
        for (group, target) in groups.zip(&mut targets) {
            for (i, element) in group.iter().enumerate() {
                target[column * K::GROUP + i] = K::Packed::pack_from(*element);
            }
        }
        if let Some((element, target)) = rest.first().zip(targets.next()) {
            target[column * K::GROUP] = K::Packed::pack_from(*element);
        }
    }

    /// Packs panel `panel` of the columns of `source`, whose rows run along `k`: values.
    pub(crate) fn pack_from_columns<K: MicroKernel, E: Copy>(
        source: Matrix<'_, E>,
        panel: usize,
        packed: &mut [K::Packed],
    ) where
        K::Packed: PackFrom<E>,
    {
        let zero = K::Packed::from_f32(0.0);
        let first = panel * K::COLUMNS;
        let columns = source.columns.saturating_sub(first).min(K::COLUMNS);
        if columns < K::COLUMNS || !source.rows.is_multiple_of(K::GROUP) {
            packed.fill(zero);
        }
        let row = |row: usize| &source.row(row)[first..][..columns];
        for (index, group) in packed.chunks_exact_mut(K::GROUP * K::COLUMNS).enumerate() {
            let begin = index * K::GROUP;
            if K::GROUP == 2 && begin + 1 < source.rows {
                let pairs = row(begin).iter().zip(row(begin + 1));
                for (target, (upper, lower)) in group.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
                    *target = [K::Packed::pack_from(*upper), K::Packed::pack_from(*lower)];
                }
                continue;
            }
            for at in begin..(begin + K::GROUP).min(source.rows) {
                for (target, element) in group.chunks_exact_mut(K::GROUP).zip(row(at)) {
                    target[at - begin] = K::Packed::pack_from(*element);
                }
            }
        }
    }
}
