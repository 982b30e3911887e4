//! Truncated decompositions against matrices whose directions are known, and against the full decomposition.

use super::*;

fn numbers(length: usize, seed: u32) -> Vec<f32> {
    let number = |at: usize| {
        let mixed = (at as u32 + 1).wrapping_mul(2_654_435_761).wrapping_mul(2 * seed + 1);
        let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x2c1b_3c6d);
        (mixed >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..length).map(number).collect()
}

fn energy(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum()
}

/// Squared error of a truncation.
fn error(matrix: &[f32], [rows, columns]: [usize; 2], found: &Truncated, rank: usize) -> f64 {
    let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    energy(places.map(|(row, column)| {
        let near: f64 =
            (0..rank).map(|at| found.left[row * rank + at] * found.right[at * columns + column]).sum();
        f64::from(matrix[row * columns + column]) - near
    }))
}

/// The least squared error that any matrix of this rank can have: what the other directions hold.
fn least(matrix: &[f32], [rows, columns]: [usize; 2], rank: usize) -> f64 {
    let gram = (0..columns * columns).map(|at| {
        let product = |row: usize| {
            f64::from(matrix[row * columns + at / columns]) * f64::from(matrix[row * columns + at % columns])
        };
        (0..rows).map(product).sum()
    });
    eigen(gram.collect(), columns).unwrap().values.iter().skip(rank).map(|value| value.max(0.0)).sum()
}

#[test]
fn no_other_matrix_of_the_rank_comes_nearer() {
    for (shape, rank) in [([40, 24], 4), ([24, 40], 4), ([33, 1], 1), ([1, 17], 1), ([16, 16], 16)] {
        let matrix = numbers(shape[0] * shape[1], 1);
        let found = truncate(&matrix, shape, rank).unwrap();
        let all = energy(matrix.iter().map(|value| f64::from(*value)));
        let (own, best) = (error(&matrix, shape, &found, rank), least(&matrix, shape, rank));
        assert!((own - best).abs() <= 1e-12 * all, "{shape:?}: {own} {best}");
    }
}

#[test]
fn large_matrices_lose_less_than_a_millionth_of_the_best_directions() {
    // Random numbers have no strong directions at all, which is the hardest case.
    for shape in [[400, 300], [300, 400], [520, 513]] {
        let matrix = numbers(shape[0] * shape[1], 2);
        let found = truncate(&matrix, shape, 32).unwrap();
        let all = energy(matrix.iter().map(|value| f64::from(*value)));
        let (own, best) = (error(&matrix, shape, &found, 32), least(&matrix, shape, 32));
        assert!(own - best <= 1e-6 * (all - best), "{shape:?}: {own} {best}");
        assert!(own - best >= -1e-9 * all);
    }
}

#[test]
fn matrices_of_low_rank_come_back_whole() {
    let (rows, columns, rank) = (410, 350, 5);
    let (left, right) = (numbers(rows * rank, 3), numbers(rank * columns, 4));
    let product = |at: usize| {
        (0..rank).map(|k| left[at / columns * rank + k] * right[k * columns + at % columns]).sum::<f32>()
    };
    let matrix: Vec<f32> = (0..rows * columns).map(product).collect();
    let found = truncate(&matrix, [rows, columns], 8).unwrap();
    let all = energy(matrix.iter().map(|value| f64::from(*value)));
    assert!(error(&matrix, [rows, columns], &found, 8) <= 1e-12 * all);
}

#[test]
fn more_directions_than_the_matrix_has_are_zeros() {
    let matrix = numbers(12, 5);
    let found = truncate(&matrix, [3, 4], 6).unwrap();
    assert_eq!((found.left.len(), found.right.len()), (18, 24));
    assert!(found.left.chunks(6).all(|row| row[3..].iter().all(|value| *value == 0.0)));
    assert!(found.right[12..].iter().all(|value| *value == 0.0));
    assert!(error(&matrix, [3, 4], &found, 6) < 1e-12);
    let zero = truncate(&[0.0; 12], [4, 3], 2).unwrap();
    assert!(zero.left.iter().all(|value| *value == 0.0));
}

#[test]
fn threads_change_no_bit() {
    let matrix = numbers(700 * 290, 6);
    let found = [1, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| truncate(&matrix, [700, 290], 16).unwrap())
    });
    assert_eq!(found[0], found[1]);
}
