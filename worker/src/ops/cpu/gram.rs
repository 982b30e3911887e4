//! Sums of `xᵀ · x`, which do not depend on how samples are put into batches.

use qlaunch_shared::Result;
use qlaunch_shared::protocol::NumericPath;

use super::elements::ModelElement;
use super::gemm::{MicroKernel, PackFrom, WithKernel, add_gram, with_wide_kernel};
use super::scratch::Scratch;

/// What is the same for all element types.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addition<'a> {
    pub(super) path: NumericPath,
    /// Columns of `x`, and both sides of the sums.
    pub(super) columns: usize,
    /// Rows that always come in one call.
    pub(super) together: usize,
    pub(super) scratch: &'a Scratch,
}

impl Addition<'_> {
    /// Adds `xᵀ · x` to the upper triangle of `sums`, on the rayon pool that it is called in.
    pub(super) fn of<E: ModelElement>(self, x: &[E], sums: &mut [f32]) -> Result<()> {
        let (columns, scratch) = (self.columns, self.scratch);
        match self.together {
            // Kernels that multiply neighbours together would see other pairs in other batches.
            0 | 1 => with_wide_kernel::<E, _>(self.path, Work { x, columns, sums, scratch }),
            _ => {
                for x in x.chunks(self.together * columns) {
                    E::with_kernel(self.path, Work { x, columns, sums: &mut *sums, scratch });
                }
            }
        }
        Ok(())
    }
}

/// [`add_gram`] for whichever kernel it meets.
struct Work<'a, E> {
    x: &'a [E],
    columns: usize,
    sums: &'a mut [f32],
    scratch: &'a Scratch,
}

impl<E: ModelElement> WithKernel<E> for Work<'_, E> {
    type Output = ();

    fn run<K: MicroKernel>(self, kernel: K)
    where
        K::Packed: PackFrom<E>,
    {
        add_gram(kernel, self.x, self.columns, self.sums, self.scratch);
    }
}
