//! Where the scales of a matrix stand: one per tensor, row, block or square; and the largest magnitude of each.

use rayon::prelude::*;

use super::Source;
use crate::tensor::simd::{InstructionSet, dispatched};

/// Elements that one task of the thread pool handles, in whole rows.
pub(super) const ROWS_ELEMENTS: usize = 1 << 17;

/// A matrix of rows of `columns`, cut into runs of `width` columns and `height` rows that share a scale; the last run of a
/// row, and the last of a column, may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runs {
    /// Elements of a row.
    pub columns: usize,
    /// Elements of a row that share a scale.
    pub width: usize,
    /// Rows that share scales.
    pub height: usize,
}

impl Runs {
    /// One scale per row.
    pub const fn rows(columns: usize) -> Self {
        Self { columns, width: columns, height: 1 }
    }

    /// One scale per `block` elements of a row.
    pub const fn blocks(columns: usize, block: usize) -> Self {
        Self { columns, width: block, height: 1 }
    }

    /// One scale per square.
    pub const fn squares(columns: usize, side: usize) -> Self {
        Self { columns, width: side, height: side }
    }

    /// Scales of one row.
    pub const fn across(self) -> usize {
        if self.width == 0 { 0 } else { self.columns.div_ceil(self.width) }
    }

    /// The largest magnitude of every run of a matrix, exact, row-major. The elements must be finite.
    ///
    /// Runs on the caller's thread pool.
    pub fn magnitudes<E: Source>(self, source: &[E]) -> Vec<f32> {
        let set = InstructionSet::detect();
        let band = self.columns.max(1) * self.height.max(1);
        let bands = (ROWS_ELEMENTS / band).max(1);
        let mut largest = vec![0f32; source.len().div_ceil(band) * self.across()];
        source
            .par_chunks(bands * band)
            .zip(largest.par_chunks_mut(bands * self.across().max(1)))
            .for_each(|(source, largest)| largest_of_runs(set, source, self, largest));
        largest
    }
}

dispatched! {
    /// `source` begins with a run's first row.
    fn largest_of_runs<E: Source>(source: &[E], runs: Runs, largest: &mut [f32]) {
        let columns = runs.columns.max(1);
        let bands = source.chunks(columns * runs.height.max(1));
        for (band, largest) in bands.zip(largest.chunks_mut(runs.across().max(1))) {
            for row in band.chunks(columns) {
                for (run, largest) in row.chunks(runs.width.max(1)).zip(largest.iter_mut()) {
                    let mut bits = E::Bits::default();
                    for value in run {
                        bits = bits.max(value.magnitude_bits());
                    }
                    *largest = largest.max(E::of_magnitude_bits(bits));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_its_own_largest_magnitude_ragged_ones_too() {
        let (rows, columns) = (5, 7);
        let source: Vec<f32> = (0..rows * columns).map(|i| ((i * 37 % 101) as f32 - 50.0) / 8.0).collect();
        for (width, height) in [(7, 1), (3, 1), (3, 2), (7, 5), (2, 4), (100, 100)] {
            let runs = Runs { columns, width, height };
            let found = runs.magnitudes(&source);
            let (down, across) = (rows.div_ceil(height), columns.div_ceil(width));
            assert_eq!(found.len(), down * across);
            for (at, found) in found.iter().enumerate() {
                let mut expected = 0f32;
                for row in (0..rows).filter(|row| row / height == at / across) {
                    for column in (0..columns).filter(|column| column / width == at % across) {
                        expected = expected.max(source[row * columns + column].abs());
                    }
                }
                assert_eq!(*found, expected, "{runs:?} {at}");
            }
        }
    }
}
