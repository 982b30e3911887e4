//! Asking for memory before it is needed.
//!
//! A codec's vector code finishes a cache line in the time that a part of it takes to arrive, and the hardware's own
//! prefetch ends at every page. Asked for a few kilobytes ahead, the lines are there in time.

/// Bytes of a cache line on every CPU with a vector path.
const LINE: usize = 64;

/// Asks for the `length` elements that lie `ahead` elements behind the start of `source`, which may be past its end.
#[inline(always)]
pub(super) fn prefetch<T>(source: &[T], ahead: usize, length: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = source.as_ptr().wrapping_add(ahead).cast::<i8>();
        for offset in (0..length * size_of::<T>()).step_by(LINE) {
            // SAFETY: the instruction is a hint: no address is too wild for it.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (source, ahead, length, LINE);
}
