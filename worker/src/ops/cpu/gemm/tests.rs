//! Kernels against a chain of scalar operations, bit for bit.

use half::bf16;

use super::kernel::Begin;
use super::kernel::{MicroKernel, PackFrom, PackedElement};
use super::pack::{LeftLayout, Matrix, RightLayout};
use super::portable::Portable;
use crate::tensor::dtype::Element;

/// Numbers of both signs and many sizes.
fn numbers(length: usize, step: u32) -> Vec<f32> {
    let values = (0..length as u32).map(|index| {
        let mixed = (index + 1).wrapping_mul(step).wrapping_mul(2_654_435_761);
        (mixed >> 8) as f32 / (1 << 23) as f32 - 1.0
    });
    values.collect()
}

/// The tile that kernel `K` makes of `ROWS` rows and `COLUMNS` columns of length `k`, in two runs of `k`.
fn tile<K: MicroKernel, E: Element>(kernel: K, x: &[E], w: &[E], k: usize) -> Vec<f32>
where
    K::Packed: PackFrom<E>,
{
    let layout = LeftLayout::new::<K>(K::ROWS, k);
    let mut left = vec![K::Packed::from_f32(f32::NAN); layout.length::<K>()];
    layout.pack::<K, E>(Matrix::dense(x, k), 0, &mut left);
    let mut right = vec![K::Packed::from_f32(f32::NAN); RightLayout::new::<K>(k).length::<K>(K::COLUMNS)];
    RightLayout::pack_from_rows::<K, E>(Matrix::dense(w, k), 0, &mut right);
    let mut sums = vec![0.25; K::ROWS * K::COLUMNS];
    for (block, right) in right.chunks(K::Packed::BLOCK * K::COLUMNS).enumerate() {
        kernel.accumulate(layout.block::<K>(&left, 0, block), right, Begin::Held, (&mut sums, K::COLUMNS));
    }
    sums
}

/// The same sums, one chain over `k` each.
fn chains<K: MicroKernel, E: Element>(
    x: &[E],
    w: &[E],
    k: usize,
    add: impl Fn(f32, f32, f32) -> f32,
) -> Vec<f32> {
    let places = (0..K::ROWS).flat_map(|row| (0..K::COLUMNS).map(move |column| (row, column)));
    let chain = |(row, column): (usize, usize)| {
        (0..k).fold(0.25, |sum, i| add(x[row * k + i].to_f32(), w[column * k + i].to_f32(), sum))
    };
    places.map(chain).collect()
}

fn narrow(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|value| <bf16 as Element>::from_f32(*value)).collect()
}

/// A wide kernel gives the bits of scalar chains, from `f32` and from bf16 elements.
fn check_wide<K: MicroKernel<Packed = f32>>(kernel: K, add: impl Fn(f32, f32, f32) -> f32 + Copy) {
    for k in [1, 7, 255, 256, 257, 600] {
        let (x, w) = (numbers(K::ROWS * k, 3), numbers(K::COLUMNS * k, 5));
        assert_eq!(tile(kernel, &x, &w, k), chains::<K, f32>(&x, &w, k, add), "k = {k}");
        let (x, w) = (narrow(&x), narrow(&w));
        assert_eq!(tile(kernel, &x, &w, k), chains::<K, bf16>(&x, &w, k, add), "bf16, k = {k}");
    }
}

#[test]
fn the_portable_kernel_multiplies_then_adds_in_order() {
    check_wide(Portable, |x, w, sum| sum + x * w);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::{Avx2, Avx512, Avx512Bf16};
    use super::*;

    #[test]
    fn the_avx2_kernel_is_a_chain_of_fused_multiply_adds() {
        if let Some(kernel) = Avx2::detect() {
            check_wide(kernel, |x, w, sum| x.mul_add(w, sum));
        }
    }

    #[test]
    fn the_avx512_kernel_gives_the_bits_of_the_avx2_kernel() {
        if let Some(kernel) = Avx512::detect() {
            check_wide(kernel, |x, w, sum| x.mul_add(w, sum));
        }
    }

    #[test]
    fn the_bf16_kernel_adds_both_products_of_a_pair() {
        let Some(kernel) = Avx512Bf16::detect() else {
            return;
        };
        for k in [1, 2, 7, 511, 512, 513, 1200] {
            let x = narrow(&numbers(Avx512Bf16::ROWS * k, 3));
            let w = narrow(&numbers(Avx512Bf16::COLUMNS * k, 5));
            let exact = chains::<Avx512Bf16, bf16>(&x, &w, k, |x, w, sum| x.mul_add(w, sum));
            for (found, exact) in tile(kernel, &x, &w, k).into_iter().zip(exact) {
                // Two chains of `f32` sums of `k` products below 1, whose pairs are added in another order.
                assert!(
                    (found - exact).abs() <= k as f32 * f32::EPSILON * 8.0,
                    "k = {k}: {found}, not {exact}"
                );
            }
        }
    }

    #[test]
    fn integers_multiply_exactly_in_every_kernel() {
        let k = 37;
        let integers = |length: usize| (0..length).map(|i| (i * 7 % 15) as f32 - 7.0).collect::<Vec<_>>();
        if let Some(kernel) = Avx512Bf16::detect() {
            let (x, w) =
                (narrow(&integers(Avx512Bf16::ROWS * k)), narrow(&integers(Avx512Bf16::COLUMNS * k)));
            let exact = chains::<Avx512Bf16, bf16>(&x, &w, k, |x, w, sum| sum + x * w);
            assert_eq!(tile(kernel, &x, &w, k), exact);
        }
    }
}

#[test]
fn values_are_packed_along_their_rows() {
    // A right operand given as `[k, n]` equals its transpose given as `[n, k]`.
    let (k, n) = (9, 11);
    let source = numbers(k * n, 3);
    let transposed: Vec<f32> = (0..n * k).map(|i| source[i % k * n + i / k]).collect();
    let length = RightLayout::new::<Portable>(k).panel_length();
    for panel in 0..2 {
        let (mut by_columns, mut by_rows) = (vec![f32::NAN; length], vec![f32::NAN; length]);
        RightLayout::pack_from_columns::<Portable, f32>(Matrix::dense(&source, n), panel, &mut by_columns);
        RightLayout::pack_from_rows::<Portable, f32>(Matrix::dense(&transposed, k), panel, &mut by_rows);
        assert_eq!(by_columns, by_rows);
    }
}
