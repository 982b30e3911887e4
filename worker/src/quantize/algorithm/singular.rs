//! The strongest directions of a matrix: a truncated singular value decomposition in f64.
//!
//! A small matrix's Gram matrix is decomposed as it is. Of a large one, a block Krylov space is grown until the energy of its
//! strongest directions no longer does; what is lost is then below a millionth of what the best directions hold. Sums run over
//! fixed parts of the rows, so that threads change no bit. Source: Golub and Van Loan, Matrix Computations, §10.1-10.3.

use qlaunch_shared::Result;
use rayon::prelude::*;

use super::eigen::{Eigen, add, dot, eigen};
use crate::tensor::simd::{InstructionSet, dispatched};

/// Vectors that the space grows by.
const BLOCK: usize = 16;
/// Rows that are multiplied together.
const STRIP: usize = 8;
/// Parts of the rows whose sums are added in order.
const PARTS: usize = 16;
/// Up to this many columns the Gram matrix is decomposed as it is.
const SMALL: usize = 256;
/// Share of the energy that may still be missing when the space is large enough.
const SETTLED: f64 = 1e-7;

/// `left · right` is the matrix of a rank that comes nearest to another one.
#[derive(Debug, Clone, PartialEq)]
pub struct Truncated {
    /// `[rows, rank]`: left singular vectors times singular values.
    pub left: Vec<f64>,
    /// `[rank, columns]`: right singular vectors.
    pub right: Vec<f64>,
}

/// The `rank` strongest directions of `matrix` `[rows, columns]`; where it has fewer, zeros fill up.
///
/// # Errors
/// An element is not finite.
pub fn truncate(matrix: &[f32], [rows, columns]: [usize; 2], rank: usize) -> Result<Truncated> {
    let tall = rows >= columns;
    let turned = if tall { Vec::new() } else { transpose(matrix, [rows, columns]) };
    let matrix = Tall { elements: if tall { matrix } else { &turned }, columns: rows.min(columns) };
    let side = matrix.columns;
    let kept = rank.min(side);
    let strongest = matrix.strongest(kept)?;
    let mut images = matrix.images(&strongest, kept);
    images.resize(rank * rows.max(columns), 0.0);
    let mut strongest = strongest;
    strongest.resize(rank * side, 0.0);
    if tall {
        return Ok(Truncated { left: columns_of(&images, rows, rank), right: strongest });
    }
    for (image, own) in images.chunks_mut(columns.max(1)).zip(strongest.chunks_mut(side.max(1))) {
        let value = image.iter().map(|value| value * value).sum::<f64>().sqrt();
        own.iter_mut().for_each(|own| *own *= value);
        image.iter_mut().for_each(|image| *image /= if value > 0.0 { value } else { 1.0 });
    }
    Ok(Truncated { left: columns_of(&strongest, rows, rank), right: images })
}

/// `[columns, rows]` of `[rows, columns]`.
fn transpose(matrix: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| matrix[row * columns + column])).collect()
}

/// `[rows, rank]` of `[rank, rows]`.
fn columns_of(vectors: &[f64], rows: usize, rank: usize) -> Vec<f64> {
    (0..rows).flat_map(|row| (0..rank).map(move |at| vectors[at * rows + row])).collect()
}

/// A matrix with at least as many rows as columns.
struct Tall<'a> {
    elements: &'a [f32],
    columns: usize,
}

impl Tall<'_> {
    /// The unit vectors `[count, columns]` whose images are longest.
    fn strongest(&self, count: usize) -> Result<Vec<f64>> {
        if self.columns <= SMALL || count * 4 > self.columns {
            let found = eigen(self.gram(), self.columns)?;
            return Ok(found.vectors[..count * self.columns].to_vec());
        }
        let mut space = Space::new(self.columns);
        let (mut energy, mut growth, mut next_look) = (0f64, f64::INFINITY, 3 * count);
        loop {
            let full = space.grow(self);
            if space.count() < next_look && !full {
                continue;
            }
            let found = space.decompose()?;
            let grown: f64 = found.values[..count].iter().sum();
            // From look to look growth shrinks ever faster, so the next one brings no more than this.
            let grows = grown - energy;
            let missing = grows * f64::min(grows / growth, 1.0);
            if full || (growth.is_finite() && missing <= SETTLED * grown) {
                return Ok(space.combine(&found, count));
            }
            (energy, growth) = (grown, grows);
            next_look += (space.count() / 4).next_multiple_of(BLOCK);
        }
    }

    fn parts(&self) -> impl IndexedParallelIterator<Item = &[f32]> {
        let rows = self.elements.len() / self.columns.max(1);
        let part = rows.div_ceil(PARTS).next_multiple_of(STRIP).max(1) * self.columns.max(1);
        self.elements.par_chunks(part)
    }

    /// Sums what each part of the rows contributes, in order.
    fn sum(&self, length: usize, contribute: impl Fn(&[f32], &mut [f64]) + Sync) -> Vec<f64> {
        let parts: Vec<Vec<f64>> = self
            .parts()
            .map(|part| {
                let mut own = vec![0f64; length];
                contribute(part, &mut own);
                own
            })
            .collect();
        let mut sum = vec![0f64; length];
        for part in parts {
            sum.iter_mut().zip(part).for_each(|(sum, own)| *sum += own);
        }
        sum
    }

    /// `matrixᵀ · matrix`, both halves.
    fn gram(&self) -> Vec<f64> {
        let (n, set) = (self.columns, InstructionSet::detect());
        let mut gram = self.sum(n * n, |part, own| {
            let mut wide = vec![0f64; STRIP * n];
            for strip in part.chunks(STRIP * n.max(1)) {
                wide.fill(0.0);
                wide.iter_mut().zip(strip).for_each(|(wide, value)| *wide = f64::from(*value));
                add_products(set, &wide, n, own);
            }
        });
        for row in 0..n {
            for column in 0..row {
                gram[row * n + column] = gram[column * n + row];
            }
        }
        gram
    }

    /// `matrixᵀ · (matrix · right)` with `right` `[columns, BLOCK]`.
    fn gram_times(&self, right: &[f64]) -> Vec<f64> {
        let (n, set) = (self.columns, InstructionSet::detect());
        self.sum(n * BLOCK, |part, own| {
            let mut packed = vec![0f64; n * STRIP];
            let mut image = [0f64; STRIP * BLOCK];
            for strip in part.chunks(STRIP * n.max(1)) {
                pack(strip, n, &mut packed);
                multiply(set, &packed, right, &mut image);
                multiply_back(set, &packed, &image, own);
            }
        })
    }

    /// The images `[count, rows]` of vectors `[count, columns]`.
    fn images(&self, vectors: &[f64], count: usize) -> Vec<f64> {
        let (n, set) = (self.columns, InstructionSet::detect());
        let rows = self.elements.len() / n.max(1);
        let mut images = vec![0f64; count * rows];
        for (block, images) in images.chunks_mut(BLOCK * rows.max(1)).enumerate() {
            let first = block * BLOCK;
            let right = interleaved(&vectors[first * n..usize::min((first + BLOCK) * n, count * n)], n);
            let parts: Vec<Vec<f64>> = self
                .parts()
                .map(|part| {
                    let mut packed = vec![0f64; n * STRIP];
                    let mut image = [0f64; STRIP * BLOCK];
                    part.chunks(STRIP * n.max(1))
                        .flat_map(|strip| {
                            pack(strip, n, &mut packed);
                            multiply(set, &packed, &right, &mut image);
                            image[..strip.len() / n * BLOCK].to_vec()
                        })
                        .collect()
                })
                .collect();
            for (row, image) in parts.concat().chunks(BLOCK).enumerate() {
                for (at, own) in images.chunks_mut(rows.max(1)).enumerate() {
                    own[row] = image[at];
                }
            }
        }
        images
    }
}

/// A space that grows block by block, and how the Gram matrix acts in it.
struct Space {
    /// Elements of a vector.
    n: usize,
    /// Unit vectors at right angles, or zeros where nothing was left: `[count, n]`.
    vectors: Vec<f64>,
    /// Of each block: products of all vectors up to it with the images of its own, `[known, BLOCK]`.
    products: Vec<Vec<f64>>,
    /// What the next block begins with.
    next: Vec<f64>,
}

impl Space {
    fn new(n: usize) -> Self {
        // Any directions will do that have something in common with all others.
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut number = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        let next = (0..BLOCK * n).map(|_| number()).collect();
        Self { n, vectors: Vec::new(), products: Vec::new(), next }
    }

    fn count(&self) -> usize {
        self.vectors.len() / self.n
    }

    /// Takes the next block in; whether there is nothing more to take.
    fn grow(&mut self, matrix: &Tall<'_>) -> bool {
        let (n, set) = (self.n, InstructionSet::detect());
        let mut block = std::mem::take(&mut self.next);
        // What rounding leaves of known directions after the first time is gone after the second.
        for _ in 0..2 {
            let products = self.against(&block);
            block.par_chunks_mut(n).enumerate().for_each(|(at, own)| {
                for (known, products) in self.vectors.chunks(n).zip(products.chunks(BLOCK)) {
                    add(set, own, -products[at], known);
                }
            });
            straighten(set, &mut block, n);
        }
        let empty = block.iter().all(|value| *value == 0.0);
        self.vectors.extend_from_slice(&block);
        let images = matrix.gram_times(&interleaved(&block, n));
        self.next = (0..BLOCK).flat_map(|at| images.iter().skip(at).step_by(BLOCK).copied()).collect();
        self.products.push(self.against(&self.next));
        empty || self.count() >= n
    }

    /// Products of all vectors with those of a block: `[count, BLOCK]`.
    fn against(&self, block: &[f64]) -> Vec<f64> {
        let (n, set) = (self.n, InstructionSet::detect());
        let vectors = self.vectors.par_chunks(n);
        vectors.flat_map_iter(|known| block.chunks(n).map(move |own| dot(set, known, own))).collect()
    }

    /// The Gram matrix as it acts in the space, decomposed.
    fn decompose(&self) -> Result<Eigen> {
        let count = self.count();
        let mut matrix = vec![0f64; count * count];
        for (block, products) in self.products.iter().enumerate() {
            for (row, products) in products.chunks(BLOCK).enumerate() {
                for (at, product) in products.iter().enumerate() {
                    let column = block * BLOCK + at;
                    if row <= column {
                        matrix[row * count + column] = *product;
                        matrix[column * count + row] = *product;
                    }
                }
            }
        }
        eigen(matrix, count)
    }

    /// The first `count` vectors of a decomposition as vectors of the whole space.
    fn combine(&self, found: &Eigen, count: usize) -> Vec<f64> {
        let (n, set) = (self.n, InstructionSet::detect());
        let mut combined = vec![0f64; count * n];
        combined.par_chunks_mut(n).zip(found.vectors.par_chunks(self.count())).for_each(|(own, weights)| {
            for (known, weight) in self.vectors.chunks(n).zip(weights) {
                add(set, own, *weight, known);
            }
        });
        combined
    }
}

/// Sets the vectors of a block at right angles, one after the other; those with nothing of their own become zero.
fn straighten(set: InstructionSet, block: &mut [f64], n: usize) {
    for at in 0..BLOCK {
        let (known, rest) = block.split_at_mut(at * n);
        let own = &mut rest[..n];
        let before = dot(set, own, own).sqrt();
        for known in known.chunks(n) {
            let along = dot(set, known, own);
            add(set, own, -along, known);
        }
        let length = dot(set, own, own).sqrt();
        let factor = if length > before * 1e-12 { 1.0 / length } else { 0.0 };
        own.iter_mut().for_each(|value| *value *= factor);
    }
}

/// `[n, BLOCK]` of at most `BLOCK` vectors `[_, n]`.
fn interleaved(vectors: &[f64], n: usize) -> Vec<f64> {
    let mut target = vec![0f64; n * BLOCK];
    for (at, vector) in vectors.chunks(n).enumerate() {
        for (place, value) in vector.iter().enumerate() {
            target[place * BLOCK + at] = *value;
        }
    }
    target
}

/// Rows `[STRIP, n]` as `[n, STRIP]`; missing rows are zero.
fn pack(strip: &[f32], n: usize, packed: &mut [f64]) {
    packed.fill(0.0);
    for (at, row) in strip.chunks(n).enumerate() {
        for (place, value) in row.iter().enumerate() {
            packed[place * STRIP + at] = f64::from(*value);
        }
    }
}

dispatched! {
    /// Images `[STRIP, BLOCK]` of `right` `[n, BLOCK]` under rows `packed` `[n, STRIP]`.
    fn multiply(packed: &[f64], right: &[f64], image: &mut [f64; STRIP * BLOCK]) {
        let mut sums = [[0f64; BLOCK]; STRIP];
        for (rows, right) in packed.as_chunks::<STRIP>().0.iter().zip(right.as_chunks::<BLOCK>().0) {
            for row in 0..STRIP {
                for column in 0..BLOCK {
                    sums[row][column] += rows[row] * right[column];
                }
            }
        }
        image.copy_from_slice(sums.as_flattened());
    }
}

dispatched! {
    /// Adds `packed · image` to `target` `[n, BLOCK]`.
    fn multiply_back(packed: &[f64], image: &[f64; STRIP * BLOCK], target: &mut [f64]) {
        let image: [[f64; BLOCK]; STRIP] = std::array::from_fn(|row| std::array::from_fn(|at| image[row * BLOCK + at]));
        for (rows, target) in packed.as_chunks::<STRIP>().0.iter().zip(target.as_chunks_mut::<BLOCK>().0) {
            let mut sums = *target;
            for row in 0..STRIP {
                for column in 0..BLOCK {
                    sums[column] += rows[row] * image[row][column];
                }
            }
            *target = sums;
        }
    }
}

dispatched! {
    /// Adds the products of `STRIP` rows to the upper half of `target` `[n, n]`.
    fn add_products(strip: &[f64], n: usize, target: &mut [f64]) {
        for (place, target) in target.chunks_mut(n.max(1)).enumerate() {
            let mut rows = strip.chunks(n.max(1)).map(|row| (row[place], &row[place..]));
            let target = &mut target[place..];
            while let (Some((a, row_a)), Some((b, row_b)), Some((c, row_c)), Some((d, row_d))) =
                (rows.next(), rows.next(), rows.next(), rows.next())
            {
                for ((((sum, one), two), three), four) in
                    target.iter_mut().zip(row_a).zip(row_b).zip(row_c).zip(row_d)
                {
                    *sum += a * one + b * two + c * three + d * four;
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "singular_tests.rs"]
mod tests;
