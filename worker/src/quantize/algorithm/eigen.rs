//! Eigenvalues and eigenvectors of a small dense symmetric matrix in f64: Householder's tridiagonal form, then implicit QL.
//!
//! Matrices of a few hundred rows, as they come up behind `svdquant`. Vectors lie in rows, so that all inner loops run along
//! memory; sums have a fixed number of lanes, so that no instruction set changes a bit. Source: Golub and Van Loan, Matrix
//! Computations, 4th edition, §8.3.

use qlaunch_shared::{Error, Result};

use crate::tensor::simd::{InstructionSet, dispatched};

/// Partial sums of a product of vectors.
const LANES: usize = 8;
/// Sweeps for one eigenvalue, of which two are usual.
const SWEEPS: usize = 60;

/// The eigenpairs of a symmetric matrix of side `n`, the largest value first.
#[derive(Debug, Clone, PartialEq)]
pub struct Eigen {
    /// `[n]`, descending.
    pub values: Vec<f64>,
    /// `[n, n]`: row `i` is the unit vector of value `i`.
    pub vectors: Vec<f64>,
}

/// Finds all eigenpairs of `matrix` `[n, n]`, of which it reads every element; its two halves must agree.
///
/// # Errors
/// An element is not finite.
pub fn eigen(mut matrix: Vec<f64>, n: usize) -> Result<Eigen> {
    let scale = matrix.iter().fold(0f64, |far, value| far.max(value.abs()));
    if matrix.iter().any(|value| !value.is_finite()) {
        return Err(Error::bug("a matrix to be decomposed is not finite"));
    }
    if scale == 0.0 {
        return Ok(Eigen { values: vec![0.0; n], vectors: identity(n) });
    }
    matrix.iter_mut().for_each(|value| *value /= scale);
    let mut form = tridiagonal(&mut matrix, n);
    diagonalize(&mut form, n)?;
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| form.diagonal[b].total_cmp(&form.diagonal[a]));
    let vectors = order.iter().flat_map(|&row| form.vectors[row * n..][..n].iter().copied()).collect();
    Ok(Eigen { values: order.iter().map(|&row| form.diagonal[row] * scale).collect(), vectors })
}

/// `vectorsᵀ · T · vectors` with tridiagonal `T` is the matrix.
struct Tridiagonal {
    diagonal: Vec<f64>,
    /// Between element `i` and `i + 1` of the diagonal; the last one is zero.
    beside: Vec<f64>,
    vectors: Vec<f64>,
}

fn identity(n: usize) -> Vec<f64> {
    (0..n * n).map(|at| f64::from(u8::from(at / n == at % n))).collect()
}

/// Mirrors one row after the other onto its first element; the mirrors stay in the rows.
fn tridiagonal(matrix: &mut [f64], n: usize) -> Tridiagonal {
    let set = InstructionSet::detect();
    let mut beside = vec![0.0; n];
    let mut doubles = vec![0.0; n];
    let mut product = vec![0.0; n];
    for k in 0..n.saturating_sub(1) {
        let (above, below) = matrix.split_at_mut((k + 1) * n);
        let mirror = &mut above[k * n + k + 1..];
        let length = dot(set, mirror, mirror).sqrt();
        let rest = mirror[1..].iter().any(|value| *value != 0.0);
        if !rest {
            beside[k] = mirror[0];
            continue;
        }
        beside[k] = if mirror[0] > 0.0 { -length } else { length };
        mirror[0] -= beside[k];
        let double = 2.0 / dot(set, mirror, mirror);
        doubles[k] = double;
        let product = &mut product[..n - k - 1];
        product.fill(0.0);
        for (row, own) in below.chunks(n).zip(mirror.iter()) {
            add(set, product, double * own, &row[k + 1..]);
        }
        let half = double / 2.0 * dot(set, product, mirror);
        add(set, product, -half, mirror);
        for (at, row) in below.chunks_mut(n).enumerate() {
            add_two(set, &mut row[k + 1..], (-mirror[at], product), (-product[at], mirror));
        }
    }
    let diagonal = (0..n).map(|at| matrix[at * n + at]).collect();
    let mut vectors = identity(n);
    for k in (0..n).rev().filter(|&k| doubles[k] != 0.0) {
        let mirror = &matrix[k * n + k + 1..][..n - k - 1];
        for row in vectors[(k + 1) * n..].chunks_mut(n) {
            let along = dot(set, &row[k + 1..], mirror);
            add(set, &mut row[k + 1..], -doubles[k] * along, mirror);
        }
    }
    Tridiagonal { diagonal, beside, vectors }
}

/// Turns neighbouring rows until nothing stands beside the diagonal.
fn diagonalize(form: &mut Tridiagonal, n: usize) -> Result<()> {
    let set = InstructionSet::detect();
    for first in 0..n {
        let mut sweeps = 0;
        loop {
            let last = first_gap(form, first, n);
            if last == first {
                break;
            }
            sweeps += 1;
            if sweeps > SWEEPS {
                return Err(Error::bug("a matrix cannot be decomposed: its eigenvalues do not settle"));
            }
            sweep(set, form, n, (first, last));
        }
    }
    Ok(())
}

/// The first place from `first` on behind which nothing stands beside the diagonal.
fn first_gap(form: &Tridiagonal, first: usize, n: usize) -> usize {
    let is_gap = |&at: &usize| {
        let around = form.diagonal[at].abs() + form.diagonal[at + 1].abs();
        // The matrix is scaled to 1, and the tridiagonal form is no more exact than this.
        form.beside[at].abs() <= f64::EPSILON * around.max(1.0)
    };
    (first..n - 1).find(is_gap).unwrap_or(n - 1)
}

/// One implicit QL sweep over the rows `first..=last`, shifted by the eigenvalue of the upper corner that is nearer.
fn sweep(set: InstructionSet, form: &mut Tridiagonal, n: usize, (first, last): (usize, usize)) {
    let Tridiagonal { diagonal, beside, vectors } = form;
    let slope = (diagonal[first + 1] - diagonal[first]) / (2.0 * beside[first]);
    let root = (slope * slope + 1.0).sqrt();
    let mut carried = diagonal[last] - diagonal[first] + beside[first] / (slope + root.copysign(slope));
    let (mut sine, mut cosine, mut shift) = (1.0, 1.0, 0.0);
    for at in (first..last).rev() {
        let (lost, kept) = (sine * beside[at], cosine * beside[at]);
        let length = (lost * lost + carried * carried).sqrt();
        beside[at + 1] = length;
        if length == 0.0 {
            diagonal[at + 1] -= shift;
            beside[last] = 0.0;
            return;
        }
        (sine, cosine) = (lost / length, carried / length);
        let rest = diagonal[at + 1] - shift;
        let turned = (diagonal[at] - rest) * sine + 2.0 * cosine * kept;
        shift = sine * turned;
        diagonal[at + 1] = rest + shift;
        carried = cosine * turned - kept;
        let (upper, lower) = vectors[at * n..(at + 2) * n].split_at_mut(n);
        turn(set, upper, lower, sine, cosine);
    }
    diagonal[first] -= shift;
    beside[first] = carried;
    beside[last] = 0.0;
}

dispatched! {
    /// The product of two vectors.
    pub(super) fn dot(left: &[f64], right: &[f64]) -> f64 {
        let mut lanes = [0f64; LANES];
        let (left, left_rest) = left.as_chunks::<LANES>();
        let (right, right_rest) = right.as_chunks::<LANES>();
        for (left, right) in left.iter().zip(right) {
            for lane in 0..LANES {
                lanes[lane] += left[lane] * right[lane];
            }
        }
        let rest: f64 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
        lanes.iter().sum::<f64>() + rest
    }
}

dispatched! {
    /// Adds `factor · other` to a vector.
    pub(super) fn add(vector: &mut [f64], factor: f64, other: &[f64]) {
        for (value, other) in vector.iter_mut().zip(other) {
            *value += factor * other;
        }
    }
}

dispatched! {
    fn add_two(vector: &mut [f64], left: (f64, &[f64]), right: (f64, &[f64])) {
        for ((value, one), other) in vector.iter_mut().zip(left.1).zip(right.1) {
            *value += left.0 * one + right.0 * other;
        }
    }
}

dispatched! {
    fn turn(upper: &mut [f64], lower: &mut [f64], sine: f64, cosine: f64) {
        for (upper, lower) in upper.iter_mut().zip(lower) {
            let (one, other) = (*upper, *lower);
            *lower = sine * one + cosine * other;
            *upper = cosine * one - sine * other;
        }
    }
}

#[cfg(test)]
#[path = "eigen_tests.rs"]
mod tests;
