//! Squares of 4-byte elements, turned: how bf16 weights are packed for a kernel that multiplies two at a time, and how a packed
//! right operand becomes a left one.

use std::arch::x86_64::{
    __m256i, _mm256_loadu_si256, _mm256_permute2x128_si256, _mm256_storeu_si256, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};

use half::bf16;

use super::kernel::SQUARE as SIDE;

/// Writes pair `p` of every row side by side to `packed[p * distance..]`, for all whole squares of pairs; returns how many
/// elements of each row are done. None where the CPU lacks AVX2.
///
/// # Panics
/// A row is shorter than the first, or `packed` too short for its pairs.
pub(super) fn turn_pairs(rows: [&[bf16]; SIDE], packed: &mut [bf16], distance: usize) -> usize {
    let squares = rows[0].len() / (2 * SIDE);
    if squares == 0 || !is_x86_feature_detected!("avx2") {
        return 0;
    }
    let done = squares * 2 * SIDE;
    assert!(rows.iter().all(|row| row.len() >= done), "rows of different lengths");
    assert!(packed.len() >= (done / 2 - 1) * distance + 2 * SIDE, "no room for the last pairs");
    for square in 0..squares {
        let sources = rows.map(|row| row[square * 2 * SIDE..].as_ptr());
        let target = packed[square * SIDE * distance..].as_mut_ptr();
        // SAFETY: AVX2 was found; each row has another 16 elements here, and each of the next 8 pairs has its room.
        unsafe { turn_square(sources, target, distance) }
    }
    done
}

/// Writes column `c` of eight columns of 4-byte groups side by side to `target[c * to..]`; the groups of a row lie side by side,
/// and rows are `from` elements apart. Whole squares of `rows` rows; returns how many rows are done. None where the CPU
/// lacks AVX2.
///
/// # Panics
/// `source` or `target` is too short for its rows.
pub(super) fn turn_groups<E: Copy>(
    (source, from): (&[E], usize),
    (target, to): (&mut [E], usize),
    rows: usize,
) -> usize {
    let group = 4 / size_of::<E>();
    let done = rows / SIDE * SIDE;
    if done == 0 || !is_x86_feature_detected!("avx2") {
        return 0;
    }
    assert!(source.len() >= (done - 1) * from + SIDE * group, "no groups in the last row");
    assert!(target.len() >= (SIDE - 1) * to + done * group, "no room for the last column");
    for row in (0..done).step_by(SIDE) {
        let sources = std::array::from_fn(|at| source[(row + at) * from..].as_ptr());
        let target = target[row * group..].as_mut_ptr();
        // SAFETY: AVX2 was found; each of the next 8 rows has 32 bytes, and each column has room for as many.
        unsafe { turn_square(sources, target, to) }
    }
    done
}

/// # Safety
/// Each source has 32 bytes, and `target` has room for 32 bytes at each of 8 multiples of `distance` elements.
#[target_feature(enable = "avx2")]
unsafe fn turn_square<E>(sources: [*const E; SIDE], target: *mut E, distance: usize) {
    // SAFETY: the caller's word.
    let rows = sources.map(|source| unsafe { _mm256_loadu_si256(source.cast()) });
    let twos = [0, 2, 4, 6].map(|at| {
        [_mm256_unpacklo_epi32(rows[at], rows[at + 1]), _mm256_unpackhi_epi32(rows[at], rows[at + 1])]
    });
    let fours = [0, 2].map(|at| {
        let join = |half: usize| {
            [
                _mm256_unpacklo_epi64(twos[at][half], twos[at + 1][half]),
                _mm256_unpackhi_epi64(twos[at][half], twos[at + 1][half]),
            ]
        };
        [join(0), join(1)]
    });
    for pair in 0..SIDE / 2 {
        let (upper, lower): (__m256i, __m256i) = (fours[0][pair / 2][pair % 2], fours[1][pair / 2][pair % 2]);
        let near = _mm256_permute2x128_si256::<0x20>(upper, lower);
        let far = _mm256_permute2x128_si256::<0x31>(upper, lower);
        // SAFETY: the caller's word.
        unsafe {
            _mm256_storeu_si256(target.add(pair * distance).cast(), near);
            _mm256_storeu_si256(target.add((pair + SIDE / 2) * distance).cast(), far);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_groups_become_rows() {
        let rows = 21;
        let source: Vec<f32> = (0..rows * 32).map(|at| at as f32).collect();
        let mut target = vec![0f32; 8 * 50];
        let done = turn_groups((&source[8..], 32), (&mut target, 50), rows);
        if is_x86_feature_detected!("avx2") {
            assert_eq!(done, 16);
        }
        for (column, turned) in target.chunks(50).enumerate() {
            for (row, value) in turned[..done].iter().enumerate() {
                assert_eq!(*value, (row * 32 + 8 + column) as f32);
            }
        }
    }

    #[test]
    fn pairs_of_rows_become_rows_of_pairs() {
        for (length, distance) in [(15, 16), (16, 16), (50, 64)] {
            let rows: Vec<Vec<bf16>> = (0..SIDE)
                .map(|row| (0..length).map(|at| bf16::from_bits((row * 1000 + at) as u16)).collect())
                .collect();
            let mut packed = vec![bf16::ZERO; length / 2 * distance + 2 * SIDE];
            let done = turn_pairs(std::array::from_fn(|row| rows[row].as_slice()), &mut packed, distance);
            if is_x86_feature_detected!("avx2") {
                assert_eq!(done, length / 16 * 16);
            }
            for (row, elements) in rows.iter().enumerate() {
                for (at, element) in elements[..done].iter().enumerate() {
                    assert_eq!(packed[at / 2 * distance + 2 * row + at % 2], *element, "{row} {at}");
                }
            }
        }
    }
}
