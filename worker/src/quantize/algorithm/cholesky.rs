//! How an error in one column is made good by the columns after it: the upper Cholesky factor of an inverse Hessian.
//!
//! With `H⁻¹ = UᵀU` and `U` upper triangular, `U⁻¹ = R` is upper triangular and `H = R·Rᵀ`: one factorization that begins at
//! the last column, and one triangular inverse, instead of ModelOpt's two factorizations and a full inverse. f64 throughout;
//! every element is one sum in a fixed order, so threads change no bit. Source: Golub and Van Loan, §4.2.

use rayon::prelude::*;

use super::eigen::dot;
use crate::tensor::simd::InstructionSet;

/// Columns that are factored before all rows below see them.
const PANEL: usize = 32;

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
    for begin in (0..n).step_by(PANEL) {
        let end = usize::min(begin + PANEL, n);
        let (above, below) = matrix.split_at_mut(end * n);
        for i in begin..end {
            let (rows, row) = above.split_at_mut(i * n);
            eliminate(set, rows, n, &mut row[..n], begin..i);
            let rest = row[i] - dot(set, &row[..i], &row[..i]);
            if !(rest.is_finite() && rest > 0.0) {
                return false;
            }
            row[i] = rest.sqrt();
        }
        below.par_chunks_mut(n).for_each(|row| eliminate(set, above, n, row, begin..end));
    }
    true
}

/// Some columns of a row of the factor; `rows` are finished as far as they are used.
fn eliminate(set: InstructionSet, rows: &[f64], n: usize, row: &mut [f64], columns: std::ops::Range<usize>) {
    for j in columns {
        let other = &rows[j * n..][..=j];
        row[j] = (row[j] - dot(set, &row[..j], &other[..j])) / other[j];
    }
}

/// The inverse of a lower triangle, transposed: row `j` holds column `j` of it, from the diagonal on.
fn inverse(set: InstructionSet, lower: &[f64], n: usize) -> Vec<f64> {
    let mut columns = vec![0f64; n * n];
    // Some columns at a time, for one pass over the triangle.
    columns.par_chunks_mut((PANEL * n).max(1)).enumerate().for_each(|(group, columns)| {
        let first = group * PANEL;
        for i in first..n {
            let row = &lower[i * n..][..=i];
            for (j, column) in (first..=i).zip(columns.chunks_mut(n)) {
                let sum = dot(set, &row[j..i], &column[j..i]);
                column[i] = if i == j { 1.0 / row[i] } else { -sum / row[i] };
            }
        }
    });
    columns
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
        for n in [1, 2, 5, 31, 32, 33, 70] {
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
    fn a_matrix_that_is_not_positive_definite_has_no_factor() {
        assert_eq!(inverse_factor(&[1.0, 2.0, 2.0, 1.0], 2), None);
        assert_eq!(inverse_factor(&[0.0; 9], 3), None);
        assert_eq!(inverse_factor(&[f64::NAN], 1), None);
    }
}
