//! Quadratic forms of Gram matrices, for whoever weighs errors of weights by what their inputs were.

use half::bf16;
use qlaunch_shared::protocol::NumericPath;

use super::gemm::{self, Form, KernelElement, MicroKernel, PackFrom, WithKernel};
use super::scratch::Scratch;

/// `e · G · eᵀ` of each row of a matrix.
type OfRows = dyn Fn(&[f32]) -> Vec<f64> + Send + Sync;

/// A symmetric matrix `G` that many rows are to be weighed by: `e · G · eᵀ`. Products' sums are f32, one chain in order of
/// columns, and totals f64. The threads of the caller's pool change no bit.
pub struct QuadraticForm {
    of_rows: Box<OfRows>,
}

impl std::fmt::Debug for QuadraticForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuadraticForm").finish_non_exhaustive()
    }
}

impl QuadraticForm {
    /// Packs a symmetric matrix `[columns, columns]`, of which the upper triangle is read, for the f32 kernel of a path.
    pub fn exact(path: NumericPath, matrix: &[f32], columns: usize) -> Self {
        f32::with_kernel(path, Packing { matrix, columns })
    }

    /// The same at twice the speed, for sums over many rows: off the diagonal, `G` and the `e` before it count as bf16, but for
    /// columns that outweigh the others 16 times.
    pub fn rounded(path: NumericPath, matrix: &[f32], columns: usize) -> Self {
        bf16::with_kernel(path, Packing { matrix, columns })
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

impl<E: KernelElement> WithKernel<E> for Packing<'_> {
    type Output = QuadraticForm;

    fn run<K: MicroKernel>(self, kernel: K) -> QuadraticForm
    where
        K::Packed: PackFrom<E>,
    {
        let form = Form::<K, E>::new(kernel, self.matrix, self.columns);
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
    use std::cmp::Ordering;

    use super::*;
    use crate::ops::CpuPath;

    fn value(i: usize) -> f32 {
        ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5
    }

    /// `e · G · eᵀ`, where `term` says what a pair of columns, the first before the second, counts once.
    fn literal(e: &[f32], g: &[f32], term: impl Fn(f32, f32, f32) -> f64) -> f64 {
        let columns = e.len();
        let pairs = (0..columns * columns).map(|i| (i / columns, i % columns));
        let terms = pairs.map(|(i, j)| match i.cmp(&j) {
            Ordering::Less => 2.0 * term(e[i], g[i * columns + j], e[j]),
            Ordering::Equal => f64::from(g[i * columns + i]) * f64::from(e[i]).powi(2),
            Ordering::Greater => 0.0,
        });
        terms.sum()
    }

    fn exact(left: f32, g: f32, right: f32) -> f64 {
        f64::from(left) * f64::from(g) * f64::from(right)
    }

    #[test]
    fn forms_are_those_of_the_definition() {
        for (rows, columns) in [(1, 1), (3, 31), (57, 100), (70, 257)] {
            let e: Vec<f32> = (0..rows * columns).map(value).collect();
            let mut g: Vec<f32> = (0..columns * columns).map(|i| value(i * 3 + 1)).collect();
            // Alike ones, so that none is heavy.
            (0..columns).for_each(|at| g[at * columns + at] = 0.5 + value(at).abs());
            mirror(&mut g, columns);
            let half = |value: f32| bf16::from_f32(value).to_f32();
            let scale: f64 = g.iter().map(|g| f64::from(g.abs())).sum::<f64>() * 0.25;
            let halved = |left: f32, g: f32, right: f32| exact(half(left), half(g), right);
            for path in [NumericPath::Portable, NumericPath::detect()] {
                let wide = QuadraticForm::exact(path, &g, columns).of_rows(&e);
                let rounded = QuadraticForm::rounded(path, &g, columns).of_rows(&e);
                assert_eq!((wide.len(), rounded.len()), (rows, rows));
                for ((row, wide), rounded) in e.chunks(columns).zip(wide).zip(rounded) {
                    for (ours, literal) in
                        [(wide, literal(row, &g, exact)), (rounded, literal(row, &g, halved))]
                    {
                        // Chains of f32: their error grows with the number of terms, far below their sum of magnitudes.
                        assert!((ours - literal).abs() <= 1e-6 * scale, "{rows} {columns}: {ours} {literal}");
                    }
                }
            }
        }
    }

    #[test]
    fn outliers_are_not_rounded() {
        let (rows, columns) = (16, 200);
        // Two channels outweigh the others and go together; a third one does by itself.
        let token = |at: usize| {
            let base = value(at * 31) * 1000.0;
            let mut token: Vec<f32> = (0..columns).map(|column| value(at * columns + column)).collect();
            (token[3], token[77], token[199]) = (base + token[3], 1.5 * base + token[77], 300.0 * token[199]);
            token
        };
        let mut g = vec![0f32; columns * columns];
        for token in (0..500).map(token) {
            g.iter_mut().enumerate().for_each(|(i, g)| *g += token[i / columns] * token[i % columns]);
        }
        let e: Vec<f32> = (0..rows * columns).map(|i| value(i * 5 + 2)).collect();
        for path in [NumericPath::Portable, NumericPath::detect()] {
            for (row, ours) in e.chunks(columns).zip(QuadraticForm::rounded(path, &g, columns).of_rows(&e)) {
                let exact = literal(row, &g, exact);
                // A tenth of what choices may differ by; a rounded outlier alone makes more of it.
                assert!((ours / exact - 1.0).abs() < 1e-4, "{ours} {exact}");
            }
        }
    }
}
