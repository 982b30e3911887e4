//! The normalized Hadamard transform of each head of keys, which spreads outliers over the head before rounding.
//!
//! Source: ModelOpt's `normalized_hadamard_transform` (modelopt.md §3.7): Sylvester's order, over the largest power of two
//! that divides a head. It is its own inverse, and scalar products stay what they are.

/// Transforms every run of `width` values in place, in f32.
pub fn hadamard(values: &mut [f32], width: usize) {
    let block = largest_power_of_two(width);
    let scale = 1.0 / (block as f32).sqrt();
    for block in values.chunks_exact_mut(block) {
        let mut half = 1;
        while half < block.len() {
            for pair in block.chunks_exact_mut(2 * half) {
                let (low, high) = pair.split_at_mut(half);
                for (a, b) in low.iter_mut().zip(high) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
        for value in block {
            *value *= scale;
        }
    }
}

fn largest_power_of_two(width: usize) -> usize {
    1 << width.max(1).trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_matrix_of_signs_and_its_own_inverse() {
        for width in [1usize, 2, 8, 24, 64, 96] {
            let block = largest_power_of_two(width);
            let before: Vec<f32> = (0..2 * width).map(|i| ((i * 29 % 31) as f32 - 15.0) / 4.0).collect();
            let mut after = before.clone();
            hadamard(&mut after, width);
            for (at, value) in after.iter().enumerate() {
                let start = at / block * block;
                let sum: f64 = (0..block)
                    .map(|column| {
                        let odd = ((at - start) & column).count_ones() % 2 == 1;
                        f64::from(before[start + column]) * if odd { -1.0 } else { 1.0 }
                    })
                    .sum();
                assert!((f64::from(*value) - sum / (block as f64).sqrt()).abs() < 1e-5, "{width} {at}");
            }
            hadamard(&mut after, width);
            assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}
