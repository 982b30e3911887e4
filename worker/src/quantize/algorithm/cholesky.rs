//! How an error in one column is made good by the columns after it: the upper Cholesky factor of an inverse Hessian.
//!
//! With `H⁻¹ = UᵀU` and `U` upper triangular, `U⁻¹ = R` is upper triangular and `H = R·Rᵀ`: one factorization that begins at
//! the last column, and one triangular inverse, instead of ModelOpt's two factorizations and a full inverse. Both are the
//! same elimination, of the matrix itself and of the unit matrix, panel of columns by panel. f64 throughout; the sums of an
//! element run in the order of columns, so neither threads nor vector width change a bit. Source: Golub and Van Loan, §4.2.

use std::ops::Range;

use rayon::prelude::*;

use crate::tensor::simd::{InstructionSet, dispatched};

/// Columns that are finished together.
const PANEL: usize = 32;
/// Rows that one task takes.
const ROWS: usize = 32;
/// Rows of a tile of products: its sums stay in registers.
const SIDE: usize = 4;
/// Columns of such a tile.
const LANES: usize = 8;
/// Columns that a tile sums over before the next tile: what it reads stays in the caches.
const DEPTH: usize = 512;

/// `Uᵀ` as `[n, n]`, row-major, f32: row `j` holds `U[i][j]` for `i ≤ j`, and zeros; `None` where the matrix is not positive
/// definite. `hessian` is `[n, n]`, symmetric.
pub(super) fn inverse_factor(hessian: &[f64], n: usize) -> Option<Vec<f32>> {
    let set = InstructionSet::detect();
    // Turned around, the first column is the last.
    let mut lower: Vec<f64> = hessian.iter().rev().copied().collect();
    if !factor(set, &mut lower, n) {
        return None;
    }
    let inverse = inverse(set, &lower, n);
    let mut turned = vec![0f32; n * n];
    turned.par_chunks_mut(n.max(1)).enumerate().for_each(|(j, row)| {
        let source = &inverse[(n - 1 - j) * n..][..n];
        for (i, value) in row[..=j].iter_mut().enumerate() {
            *value = source[n - 1 - i] as f32;
        }
    });
    Some(turned)
}

/// Puts the lower Cholesky factor in the place of the lower half of a matrix; `false` where there is none.
fn factor(set: InstructionSet, matrix: &mut [f64], n: usize) -> bool {
    for panel in panels(n) {
        let (above, below) = matrix.split_at_mut(panel.end * n);
        let own = &mut above[panel.start * n..];
        let before = Before::of((own, n), &panel);
        subtract(set, &before, (own, n), (0, &panel));
        if !factor_panel(own, n, &panel) {
            return false;
        }
        let triangle = Triangle::of((own, n), &panel);
        let tasks = below.par_chunks_mut(ROWS * n);
        tasks.for_each(|rows| eliminate(set, (&before, &triangle), (rows, n), (0, &panel)));
    }
    true
}

/// The inverse of a lower triangle, transposed: row `j` holds column `j` of it.
fn inverse(set: InstructionSet, lower: &[f64], n: usize) -> Vec<f64> {
    let mut unit = vec![0f64; n * n];
    (0..n).for_each(|at| unit[at * n + at] = 1.0);
    for panel in panels(n) {
        let own = (&lower[panel.start * n..panel.end * n], n);
        let (before, triangle) = (Before::of(own, &panel), Triangle::of(own, &panel));
        // Rows below the panel have nothing but zeros there.
        let tasks = unit[..panel.end * n].par_chunks_mut(ROWS * n).enumerate();
        tasks.for_each(|(task, rows)| eliminate(set, (&before, &triangle), (rows, n), (task * ROWS, &panel)));
    }
    unit
}

/// All panels of so many columns.
fn panels(n: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(PANEL).map(move |begin| begin..usize::min(begin + PANEL, n))
}

/// Finishes the columns `panel` of some rows, whose columns from `first` on are finished as far as they lie before.
fn eliminate(
    set: InstructionSet,
    (before, triangle): (&Before, &Triangle),
    (rows, n): (&mut [f64], usize),
    (first, panel): (usize, &Range<usize>),
) {
    subtract(set, before, (rows, n), (first, panel));
    for rows in rows.chunks_mut(SIDE * n) {
        with_columns((rows, n), panel, |_, values| solve(set, triangle, values));
    }
}

/// Takes `Σ row[k] · finished[c][k]` over the columns `first..panel.start` off the panel's columns `c` of some rows.
fn subtract(
    set: InstructionSet,
    before: &Before,
    (rows, n): (&mut [f64], usize),
    (first, panel): (usize, &Range<usize>),
) {
    for begin in (first..panel.start).step_by(DEPTH) {
        let depth = begin..usize::min(begin + DEPTH, panel.start);
        for rows in rows.chunks_mut(SIDE * n) {
            for (column, group) in panel.clone().step_by(LANES).zip(before.groups()) {
                let columns = column..usize::min(column + LANES, panel.end);
                with_columns((rows, n), &columns, |rows, sums| {
                    // For a row that is missing the last one stands in.
                    let last = rows.len() / n - 1;
                    let left = std::array::from_fn(|row| &rows[row.min(last) * n..][depth.clone()]);
                    subtract_products(set, left, &group[depth.clone()], sums);
                });
            }
        }
    }
}

/// Changes some columns of at most [`SIDE`] rows; what is missing of them is filled up with zeros.
fn with_columns<const WIDTH: usize>(
    (rows, n): (&mut [f64], usize),
    columns: &Range<usize>,
    change: impl FnOnce(&[f64], &mut [[f64; WIDTH]; SIDE]),
) {
    let mut values = [[0f64; WIDTH]; SIDE];
    for (values, row) in values.iter_mut().zip(rows.chunks(n)) {
        values[..columns.len()].copy_from_slice(&row[columns.clone()]);
    }
    change(rows, &mut values);
    for (values, row) in values.iter().zip(rows.chunks_mut(n)) {
        row[columns.clone()].copy_from_slice(&values[..columns.len()]);
    }
}

/// What the rows of a panel hold before it, as tiles read it.
struct Before {
    /// For each group of rows, `[column][row]`; rows that are missing are zeros.
    turned: Vec<[f64; LANES]>,
    /// Columns before the panel.
    columns: usize,
}

impl Before {
    fn of((rows, n): (&[f64], usize), panel: &Range<usize>) -> Self {
        let columns = panel.start;
        let mut turned = vec![[0f64; LANES]; columns * panel.len().div_ceil(LANES)];
        for (group, rows) in turned.chunks_mut(columns.max(1)).zip(rows.chunks(LANES * n)) {
            for (lane, row) in rows.chunks(n).enumerate() {
                group.iter_mut().zip(row).for_each(|(place, value)| place[lane] = *value);
            }
        }
        Self { turned, columns }
    }

    fn groups(&self) -> impl Iterator<Item = &[[f64; LANES]]> {
        self.turned.chunks(self.columns.max(1))
    }
}

/// Factors the diagonal block of a panel's own rows, from which all before is taken off.
fn factor_panel(own: &mut [f64], n: usize, panel: &Range<usize>) -> bool {
    for i in 0..panel.len() {
        let (rows, row) = own.split_at_mut(i * n);
        let row = &mut row[panel.clone()];
        for j in 0..i {
            let other = &rows[j * n..][panel.clone()];
            let sum: f64 = row[..j].iter().zip(&other[..j]).map(|(left, right)| left * right).sum();
            row[j] = (row[j] - sum) / other[j];
        }
        let rest = row[i] - row[..i].iter().map(|value| value * value).sum::<f64>();
        if !(rest.is_finite() && rest > 0.0) {
            return false;
        }
        row[i] = rest.sqrt();
    }
    true
}

/// The diagonal block of a panel.
struct Triangle {
    diagonal: [f64; PANEL],
    /// `[column][row]`, zeros on the diagonal and above.
    below: [[f64; PANEL]; PANEL],
}

impl Triangle {
    /// Of the rows of a panel; a short one is filled up with the unit matrix.
    fn of((rows, n): (&[f64], usize), panel: &Range<usize>) -> Self {
        let mut triangle = Self { diagonal: [1.0; PANEL], below: [[0.0; PANEL]; PANEL] };
        for (i, row) in rows.chunks(n).take(panel.len()).enumerate() {
            let row = &row[panel.clone()];
            triangle.diagonal[i] = row[i];
            row[..i].iter().zip(&mut triangle.below).for_each(|(value, column)| column[i] = *value);
        }
        triangle
    }
}

dispatched! {
    /// Solves `X · Lᵀ = B` for some rows in place, `L` being a triangle.
    fn solve(triangle: &Triangle, rows: &mut [[f64; PANEL]; SIDE]) {
        for (j, below) in triangle.below.iter().enumerate() {
            for row in &mut *rows {
                let value = row[j] / triangle.diagonal[j];
                for (target, below) in row.iter_mut().zip(below) {
                    *target -= value * below;
                }
                row[j] = value;
            }
        }
    }
}

dispatched! {
    /// Takes products of some rows with a group of others off sums, column by column.
    fn subtract_products(left: [&[f64]; SIDE], right: &[[f64; LANES]], sums: &mut [[f64; LANES]; SIDE]) {
        let left = left.map(|row| &row[..right.len()]);
        let mut tile = *sums;
        for (k, right) in right.iter().enumerate() {
            for (row, left) in tile.iter_mut().zip(&left) {
                let value = left[k];
                for lane in 0..LANES {
                    row[lane] -= value * right[lane];
                }
            }
        }
        *sums = tile;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A positive definite matrix that is far from diagonal.
    fn matrix(n: usize) -> Vec<f64> {
        let vectors: Vec<f64> = (0..3 * n * n).map(|i| ((i * 7919 % 1009) as f64 / 1009.0) - 0.3).collect();
        let mut matrix = vec![0f64; n * n];
        for i in 0..n {
            for j in 0..n {
                let products = (0..3 * n).map(|k| vectors[k * n + i] * vectors[k * n + j]);
                matrix[i * n + j] = products.sum::<f64>() + if i == j { 0.1 } else { 0.0 };
            }
        }
        matrix
    }

    #[test]
    fn the_factor_times_its_transpose_is_the_inverse() {
        for n in [1, 2, 5, 31, 32, 33, 70, 131] {
            let matrix = matrix(n);
            let factor = inverse_factor(&matrix, n).unwrap();
            let upper = |i: usize, j: usize| f64::from(factor[j * n + i]);
            // H · (Uᵀ U) = 1.
            for row in 0..n {
                for column in 0..n {
                    let inverse = |at: usize| (0..n).map(|k| upper(k, at) * upper(k, column)).sum::<f64>();
                    let found: f64 = (0..n).map(|at| matrix[row * n + at] * inverse(at)).sum();
                    let expected = f64::from(u8::from(row == column));
                    assert!((found - expected).abs() < 2e-3, "{n}: [{row}, {column}] is {found}");
                }
                assert!((0..row).all(|column| upper(row, column) == 0.0), "it is a triangle");
                assert!(upper(row, row) > 0.0);
            }
        }
    }

    #[test]
    fn a_large_matrix_is_inverted_through_several_depths() {
        let n = 1100;
        let distance = |at: usize| (at / n).abs_diff(at % n) as i32;
        let matrix: Vec<f64> =
            (0..n * n).map(|at| 0.5f64.powi(distance(at)) + f64::from(u8::from(distance(at) == 0))).collect();
        let factor = inverse_factor(&matrix, n).unwrap();
        let row = |j: usize| &factor[j * n..][..n];
        let wanted: Vec<f64> = (0..n).map(|at| (at * 7919 % 101) as f64 / 101.0 - 0.5).collect();
        // H⁻¹ · x = Uᵀ · (U · x).
        let mut upper = vec![0f64; n];
        (0..n).for_each(|j| (0..n).for_each(|i| upper[i] += f64::from(row(j)[i]) * wanted[j]));
        let inverse: Vec<f64> =
            (0..n).map(|j| (0..n).map(|i| f64::from(row(j)[i]) * upper[i]).sum()).collect();
        for (at, wanted) in wanted.iter().enumerate() {
            let found: f64 = (0..n).map(|k| matrix[at * n + k] * inverse[k]).sum();
            assert!((found - wanted).abs() < 1e-5, "{at}: {found} for {wanted}");
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let matrix = matrix(131);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| inverse_factor(&matrix, 131).unwrap())
        };
        let bits = |factor: Vec<f32>| factor.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(with(1)), bits(with(3)));
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_has_no_factor() {
        assert_eq!(inverse_factor(&[1.0, 2.0, 2.0, 1.0], 2), None);
        assert_eq!(inverse_factor(&[0.0; 9], 3), None);
        assert_eq!(inverse_factor(&[f64::NAN], 1), None);
    }
}
