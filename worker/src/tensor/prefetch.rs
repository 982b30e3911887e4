//! Asking for memory before it is needed.
//!
//! Vector code is done with a cache line sooner than the next one comes, and the hardware's own prefetch ends at every page.
//! Asked for some lines ahead, they are there in time: a fifth more speed for codes of NVFP4.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for as many elements as `group` has, from `ahead` elements behind its start on, which may be past all memory.
#[inline(always)]
pub(crate) fn prefetch<T, const LENGTH: usize>(group: &[T; LENGTH], ahead: usize) {
    prefetch_bytes(group.as_ptr().wrapping_add(ahead), size_of_val(group));
}

/// Asks for so many bytes from an address on, which may be past all memory.
#[inline(always)]
pub(crate) fn prefetch_bytes<T>(start: *const T, bytes: usize) {
    for line in 0..bytes / LINE {
        let address = start.cast::<i8>().wrapping_add(line * LINE);
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: the instruction is a hint, for which no address is wrong.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = address;
    }
}
