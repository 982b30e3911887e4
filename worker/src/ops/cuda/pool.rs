//! The pool that a GPU's memory comes from. What is given back stays in it: asking the driver again takes long.

use cudarc::driver::sys::{CUmemPool_attribute as Attribute, CUmemoryPool};
use cudarc::driver::{CudaContext, DriverError, result};

/// A device's pool of memory.
pub(super) struct Pool(CUmemoryPool);

// SAFETY: the driver's pools may be used from any thread, and live as long as their device.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    /// The pool of a device; none where it has none.
    pub(super) fn of(context: &CudaContext) -> Option<Self> {
        // SAFETY: the context's device was opened.
        let pool = unsafe { result::device::get_default_mem_pool(context.cu_device()) }.ok()?;
        let mut all = u64::MAX;
        // SAFETY: the pool lives, and the value of this attribute is 64 bits wide.
        let set = unsafe {
            let value = (&raw mut all).cast();
            result::mem_pool::set_attribute(pool, Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, value)
        };
        // A pool that keeps nothing is slower, and as good.
        set.is_ok().then_some(Self(pool))
    }

    /// Bytes that it keeps and nobody uses.
    pub(super) fn unused(&self) -> Result<u64, DriverError> {
        let ask = |attribute| {
            let mut bytes = 0u64;
            // SAFETY: the pool lives, and the values of these attributes are 64 bits wide.
            unsafe { result::mem_pool::get_attribute(self.0, attribute, (&raw mut bytes).cast()) }?;
            Ok(bytes)
        };
        let kept: u64 = ask(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
        Ok(kept.saturating_sub(ask(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?))
    }
}
