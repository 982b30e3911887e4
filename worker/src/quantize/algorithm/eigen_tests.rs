//! Eigenpairs against what defines them.

use super::*;

/// A symmetric matrix of numbers between -1 and 1.
fn symmetric(n: usize, seed: u32) -> Vec<f64> {
    let number = |i: usize, j: usize| {
        let mixed = ((i * n + j) as u32 + 1).wrapping_mul(2_654_435_761).wrapping_mul(2 * seed + 1);
        f64::from(mixed >> 8) / f64::from(1 << 23) - 1.0
    };
    (0..n * n).map(|at| number((at / n).min(at % n), (at / n).max(at % n))).collect()
}

fn check(matrix: &[f64], n: usize) {
    let found = eigen(matrix.to_vec(), n).unwrap();
    let size = matrix.iter().fold(0f64, |far, value| far.max(value.abs())) * n as f64;
    let close =
        |found: f64, expected: f64| assert!((found - expected).abs() <= 1e-13 * size.max(1e-300) * 16.0);
    assert!(found.values.is_sorted_by(|a, b| a >= b));
    for i in 0..n {
        let own = &found.vectors[i * n..][..n];
        for row in 0..n {
            let image: f64 = (0..n).map(|k| matrix[row * n + k] * own[k]).sum();
            close(image, found.values[i] * own[row]);
        }
        for j in 0..n {
            let product: f64 = own.iter().zip(&found.vectors[j * n..][..n]).map(|(a, b)| a * b).sum();
            assert!((product - f64::from(u8::from(i == j))).abs() < 1e-12, "{i} {j}: {product}");
        }
    }
}

#[test]
fn images_of_eigenvectors_are_their_multiples_and_they_stand_at_right_angles() {
    for n in [1, 2, 3, 5, 8, 17, 40, 97] {
        for seed in 0..3 {
            check(&symmetric(n, seed), n);
        }
    }
}

#[test]
fn equal_values_zeros_and_tiny_matrices_are_no_trouble() {
    check(&identity(9), 9);
    check(&[0.0; 25], 5);
    check(&vec![1.0; 49], 7);
    let tiny: Vec<f64> = symmetric(12, 1).iter().map(|value| value * 1e-200).collect();
    let found = eigen(tiny, 12).unwrap();
    let known = eigen(symmetric(12, 1), 12).unwrap();
    for (tiny, known) in found.values.iter().zip(known.values) {
        assert!((tiny * 1e200 - known).abs() < 1e-12);
    }
    // A block of three and zeros around it.
    let mut block = vec![0.0; 64];
    for at in [0, 1, 2] {
        for other in [0, 1, 2] {
            block[at * 8 + other] = 1.0 + f64::from(u8::from(at == other));
        }
    }
    check(&block, 8);
}

#[test]
fn a_matrix_that_is_not_finite_is_refused() {
    assert!(eigen(vec![1.0, f64::NAN, f64::NAN, 1.0], 2).is_err());
}
