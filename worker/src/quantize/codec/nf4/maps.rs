//! The two code books: 16 quantiles for elements, and a dynamic map of 256 numbers for the magnitudes of blocks.

use std::sync::LazyLock;

/// NF4: quantiles of the normal distribution, scaled so that the outermost are ±1 and one is 0 (QLoRA, appendix E).
pub(super) const QUANTILES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// bitsandbytes' signed dynamic map: seven decades of numbers, twice as many in each as in the one below.
pub(super) static DYNAMIC: LazyLock<[f32; 256]> = LazyLock::new(dynamic);

/// Decades of the dynamic map, the smallest first.
const DECADES: [f32; 7] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];

fn dynamic() -> [f32; 256] {
    let mut map = [0.0; 256];
    let mut next = 0;
    for (decade, scale) in DECADES.into_iter().enumerate() {
        let parts = 1usize << decade;
        for part in 0..parts {
            let value = scale * ((border(part, parts) + border(part + 1, parts)) / 2.0);
            map[next] = value;
            map[next + 1] = -value;
            next += 2;
        }
    }
    // One of the two places left stays zero.
    map[next] = 1.0;
    map.sort_by(f32::total_cmp);
    map
}

/// The border `at` of `parts` equal parts of 0.1 to 1, as torch's `linspace` has it: from the nearer end, in one rounding.
fn border(at: usize, parts: usize) -> f32 {
    let step = (1.0 - 0.1f32) / parts as f32;
    if at < parts.div_ceil(2) {
        step.mul_add(at as f32, 0.1)
    } else {
        (-step).mul_add((parts - at) as f32, 1.0)
    }
}

/// The middles between neighbours of a sorted code book; a number on a middle goes to the code below.
pub(super) fn middles<const CODES: usize, const MIDDLES: usize>(codes: &[f32; CODES]) -> [f32; MIDDLES] {
    let mut middles = [0.0; MIDDLES];
    for (at, middle) in middles.iter_mut().enumerate() {
        *middle = (codes[at] + codes[at + 1]) / 2.0;
    }
    middles
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_dynamic_map_is_that_of_bitsandbytes_to_the_bit() {
        // SHA-256 of `bitsandbytes.functional.create_dynamic_map().numpy().tobytes()`, bitsandbytes 0.50.2.
        let bytes: Vec<u8> = DYNAMIC.iter().flat_map(|value| value.to_le_bytes()).collect();
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, "e732639a65f497b4ad684bb166a4467708255edd5207757de8b8f0c7e1fda89c");
    }

    #[test]
    fn both_books_are_sorted_and_reach_one() {
        assert!(QUANTILES.windows(2).all(|pair| pair[0] < pair[1]) && QUANTILES[7] == 0.0);
        assert!(DYNAMIC.windows(2).all(|pair| pair[0] < pair[1]) && DYNAMIC[255] == 1.0);
        assert!(DYNAMIC.contains(&0.0));
    }
}
