//! Asking for memory before it is needed.
//!
//! The vector code of a codec is done with a cache line sooner than the next one comes, and the hardware's own prefetch
//! ends at every page. Asked for a few kilobytes ahead, lines are there in time: a fifth more speed for NVFP4.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for as many elements as `group` has, from `ahead` elements behind its start on, which may be past all memory.
#[inline(always)]
pub(super) fn prefetch<T, const LENGTH: usize>(group: &[T; LENGTH], ahead: usize) {
    let start = group.as_ptr().wrapping_add(ahead).cast::<i8>();
    for line in 0..size_of_val(group) / LINE {
        let address = start.wrapping_add(line * LINE);
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
