//! What a register-tiled kernel is, and which one a numeric path uses for an element type.
//!
//! A kernel adds the product of a panel of rows and a panel of columns to a tile of sums. Each sum is one chain over
//! `k`, first to last, that starts from zero or from what the tile holds. So cutting `k` into blocks, as the driver does for the
//! caches' sake, changes no bit; neither do the tile's place, its neighbours or padding.

use crate::ops::cpu::scratch::PlainElement;
use crate::tensor::dtype::Element;
use qlaunch_shared::protocol::NumericPath;

/// Bytes of one row of a left panel between two cuts of `k`. A tile's sums are loaded and stored again at each cut, which costs
/// more than what larger operands lose in the first-level cache.
const BLOCK_BYTES: usize = 2048;

/// Bytes from one row of a left panel to the next: a cache line more than the row, since rows at a multiple of 4 KiB
/// would all compete for the same few places of the cache.
const STRIDE_BYTES: usize = BLOCK_BYTES + 64;

/// A type that packed operands have.
pub(crate) trait PackedElement: PlainElement {
    /// Elements of `k` between two cuts.
    const BLOCK: usize = BLOCK_BYTES / size_of::<Self>();
    /// Elements from one row of a left panel to the next.
    const STRIDE: usize = STRIDE_BYTES / size_of::<Self>();

    /// Turns columns of 4-byte groups into rows, as far as the CPU does that at once; see `turn::turn_groups`.
    #[inline(always)]
    fn turn_groups(source: (&[Self], usize), target: (&mut [Self], usize), rows: usize) -> usize {
        #[cfg(target_arch = "x86_64")]
        return super::turn::turn_groups(source, target, rows);
        #[cfg(not(target_arch = "x86_64"))]
        return 0;
    }
}

impl PackedElement for f32 {}
impl PackedElement for half::bf16 {}

/// Columns whose pairs are packed at once.
pub(super) const SQUARE: usize = 8;

/// Packs an element of a tensor; exact.
pub(crate) trait PackFrom<E>: PackedElement {
    /// The same value.
    fn pack_from(element: E) -> Self;

    /// Packs pairs of neighbouring columns at once, those of one place of `k` side by side and `distance` from those of the last,
    /// where types and CPU allow it; returns how many elements of each column are done.
    #[inline(always)]
    fn pack_pairs(columns: [&[E]; SQUARE], packed: &mut [Self], distance: usize) -> usize {
        let _ = (columns, packed, distance);
        0
    }
}

impl<E: Element> PackFrom<E> for f32 {
    #[inline(always)]
    fn pack_from(element: E) -> Self {
        element.to_f32()
    }
}

impl PackFrom<half::bf16> for half::bf16 {
    #[inline(always)]
    fn pack_from(element: half::bf16) -> Self {
        element
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn pack_pairs(columns: [&[Self]; SQUARE], packed: &mut [Self], distance: usize) -> usize {
        super::turn::turn_pairs(columns, packed, distance)
    }
}

/// What the sums of a tile begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Zeros, whatever the tile holds.
    Zero,
    /// What the tile holds.
    Held,
}

impl Begin {
    /// Of a block of `k`, where tiles are new.
    #[inline(always)]
    pub(crate) fn of_block(block: usize) -> Self {
        if block == 0 { Self::Zero } else { Self::Held }
    }
}

/// A register-tiled kernel. Holding a value of the type proves that the CPU has its instructions.
pub(crate) trait MicroKernel: Copy + Send + Sync + 'static {
    /// What it multiplies.
    type Packed: PackedElement;
    /// Rows of its tile.
    const ROWS: usize;
    /// Columns of its tile.
    const COLUMNS: usize;
    /// Neighbours along `k` that it multiplies together; they lie side by side in right panels.
    const GROUP: usize;

    /// Adds `Σ left[r][i] · right[i][c]` over at most one block of `k` to what `sums[r * stride + c]` begins with, `stride` being
    /// the second part of `sums`.
    ///
    /// `left` holds `ROWS` rows, `Packed::STRIDE` apart; `right` holds its groups of `k`, each of
    /// `COLUMNS · GROUP` elements, and its length says how many.
    ///
    /// # Panics
    /// A slice is too short for the tile.
    fn accumulate(
        self,
        left: &[Self::Packed],
        right: &[Self::Packed],
        begin: Begin,
        sums: (&mut [f32], usize),
    );
}

/// Checks a kernel's operands and returns the number of groups of `k`.
#[inline(always)]
pub(super) fn checked_groups<K: MicroKernel>(
    left: &[K::Packed],
    right: &[K::Packed],
    sums: &[f32],
    stride: usize,
) -> usize {
    let groups = right.len() / (K::COLUMNS * K::GROUP);
    assert!(groups * K::GROUP <= K::Packed::BLOCK, "a right panel is longer than a block");
    assert!(left.len() >= K::ROWS * K::Packed::STRIDE, "a left panel is too short");
    assert!(stride >= K::COLUMNS && sums.len() >= (K::ROWS - 1) * stride + K::COLUMNS, "sums are too few");
    groups
}

/// What can be done with whichever kernel a path and an element type call for.
pub(crate) trait WithKernel<E> {
    /// What comes of it.
    type Output;

    /// Does it with one kernel.
    fn run<K: MicroKernel>(self, kernel: K) -> Self::Output
    where
        K::Packed: PackFrom<E>;
}

/// An element type that kernels exist for.
pub(crate) trait KernelElement: PlainElement {
    /// Runs `work` with the kernel that `path` has for this type.
    fn with_kernel<W: WithKernel<Self>>(path: NumericPath, work: W) -> W::Output;
}

impl KernelElement for f32 {
    fn with_kernel<W: WithKernel<Self>>(path: NumericPath, work: W) -> W::Output {
        with_wide_kernel(path, work)
    }
}

impl KernelElement for half::f16 {
    fn with_kernel<W: WithKernel<Self>>(path: NumericPath, work: W) -> W::Output {
        with_wide_kernel(path, work)
    }
}

impl KernelElement for half::bf16 {
    fn with_kernel<W: WithKernel<Self>>(path: NumericPath, work: W) -> W::Output {
        #[cfg(target_arch = "x86_64")]
        if path == NumericPath::Avx512Bf16
            && let Some(kernel) = super::Avx512Bf16::detect()
        {
            return work.run(kernel);
        }
        with_wide_kernel(path, work)
    }
}

/// Kernels that multiply in `f32`. AVX2 and AVX-512 give the same bits, so the faster one serves both paths.
pub(crate) fn with_wide_kernel<E: Element, W: WithKernel<E>>(path: NumericPath, work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    if path != NumericPath::Portable {
        if let Some(kernel) = super::Avx512::detect() {
            return work.run(kernel);
        }
        if let Some(kernel) = super::Avx2::detect() {
            return work.run(kernel);
        }
    }
    work.run(super::Portable)
}
