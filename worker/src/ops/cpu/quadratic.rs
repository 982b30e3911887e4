//! Quadratic forms of Gram matrices, for whoever weighs errors of weights by what their inputs were.

use qlaunch_shared::protocol::NumericPath;

use super::gemm::{self, Form, MicroKernel, PackFrom, WithKernel, with_wide_kernel};
use super::scratch::Scratch;

/// `e · G · eᵀ` of each row of a matrix.
type OfRows = dyn Fn(&[f32]) -> Vec<f64> + Send + Sync;

/// A symmetric matrix `G` that many rows are to be weighed by: `e · G · eᵀ`. Products are f32, each sum one chain in order of
/// columns; the threads of the caller's pool change no bit.
pub struct QuadraticForm {
    of_rows: Box<OfRows>,
}

impl std::fmt::Debug for QuadraticForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuadraticForm").finish_non_exhaustive()
    }
}

impl QuadraticForm {
    /// Packs a symmetric matrix `[columns, columns]`, of which the upper triangle is read, for the kernel of a path.
    pub fn new(path: NumericPath, matrix: &[f32], columns: usize) -> Self {
        with_wide_kernel(path, Packing { matrix, columns })
    }

    /// `e · G · eᵀ` of each row of `rows` `[n, columns]`.
    pub fn of_rows(&self, rows: &[f32]) -> Vec<f64> {
        (self.of_rows)(rows)
    }
}

struct Packing<'a> {
    matrix: &'a [f32],
    columns: usize,
}

impl WithKernel<f32> for Packing<'_> {
    type Output = QuadraticForm;

    fn run<K: MicroKernel>(self, kernel: K) -> QuadraticForm
    where
        K::Packed: PackFrom<f32>,
    {
        let form = Form::new(kernel, self.matrix, self.columns);
        let scratch = Scratch::default();
        QuadraticForm { of_rows: Box::new(move |rows| form.of_rows(rows, &scratch)) }
    }
}

/// Copies what is above the diagonal of a square matrix to below it.
pub fn mirror(matrix: &mut [f32], columns: usize) {
    gemm::mirror(matrix, columns);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::CpuPath;

    #[test]
    fn forms_are_those_of_the_definition() {
        for (rows, columns) in [(1, 1), (3, 31), (57, 100), (70, 257)] {
            let value = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5;
            let e: Vec<f32> = (0..rows * columns).map(value).collect();
            let mut g: Vec<f32> = (0..columns * columns).map(|i| value(i * 3 + 1)).collect();
            mirror(&mut g, columns);
            let literal = |e: &[f32]| {
                let pairs = (0..columns * columns).map(|i| (i / columns, i % columns));
                pairs
                    .map(|(i, j)| f64::from(e[i]) * f64::from(g[i * columns + j]) * f64::from(e[j]))
                    .sum::<f64>()
            };
            let scale: f64 = g.iter().map(|g| f64::from(g.abs())).sum::<f64>() * 0.25;
            for path in [NumericPath::Portable, NumericPath::detect()] {
                let ours = QuadraticForm::new(path, &g, columns).of_rows(&e);
                assert_eq!(ours.len(), rows);
                for (row, ours) in e.chunks(columns).zip(ours) {
                    // Chains of f32: their error grows with the number of terms, far below their sum of magnitudes.
                    assert!(
                        (ours - literal(row)).abs() <= 1e-6 * scale,
                        "{rows} {columns}: {ours} {}",
                        literal(row)
                    );
                }
            }
        }
    }
}
