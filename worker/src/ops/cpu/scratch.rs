//! Working memory that operations borrow and give back: aligned to cache lines, and warm from the last use.
//!
//! Fresh memory costs a page fault for every 4 KiB, which for packed matrices is a few percent of the product.

use std::marker::PhantomData;
use std::sync::Mutex;

use crate::tensor::dtype::Element;

/// 64 bytes that start at a multiple of 64: a 512-bit load from them never crosses a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([u8; 64]);

/// Buffers that no operation uses at the moment.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    idle: Mutex<Vec<Vec<CacheLine>>>,
}

/// A borrowed buffer of elements; its contents are whatever the last user left.
#[derive(Debug)]
pub(crate) struct Buffer<'a, E> {
    lines: Vec<CacheLine>,
    length: usize,
    home: &'a Scratch,
    elements: PhantomData<E>,
}

impl Scratch {
    /// A buffer of `length` elements with arbitrary contents.
    pub(crate) fn take<E: PlainElement>(&self, length: usize) -> Buffer<'_, E> {
        let needed = (length * size_of::<E>()).div_ceil(size_of::<CacheLine>());
        let mut lines = self.best_fit(needed);
        if lines.len() < needed {
            lines = vec![CacheLine([0; 64]); needed];
        }
        Buffer { lines, length, home: self, elements: PhantomData }
    }

    /// The smallest idle buffer of `needed` lines, or an empty one.
    fn best_fit(&self, needed: usize) -> Vec<CacheLine> {
        let Ok(mut idle) = self.idle.lock() else {
            return Vec::new();
        };
        let fitting = idle.iter().enumerate().filter(|(_, lines)| lines.len() >= needed);
        match fitting.min_by_key(|(_, lines)| lines.len()).map(|(index, _)| index) {
            Some(index) => idle.swap_remove(index),
            None => {
                // All are too small: let one go rather than collect one of every size.
                idle.pop();
                Vec::new()
            }
        }
    }
}

/// Elements for which every pattern of bits is a value, without alignment beyond a cache line's.
///
/// # Safety
/// Both must hold.
pub(crate) unsafe trait PlainElement: Element {}

// SAFETY: floats have no invalid bits; their alignment is their size.
unsafe impl PlainElement for f32 {}
// SAFETY: a transparent `u16`.
unsafe impl PlainElement for half::bf16 {}
// SAFETY: a transparent `u16`.
unsafe impl PlainElement for half::f16 {}

impl<E: PlainElement> std::ops::Deref for Buffer<'_, E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        // SAFETY: the lines hold at least `length` elements (`take`), are aligned to 64 bytes, and any bits are an `E`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

impl<E: PlainElement> std::ops::DerefMut for Buffer<'_, E> {
    fn deref_mut(&mut self) -> &mut [E] {
        // SAFETY: as in `deref`; the buffer is borrowed for writing, so nobody else sees it.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}

impl<E> Drop for Buffer<'_, E> {
    fn drop(&mut self) {
        if let Ok(mut idle) = self.home.idle.lock() {
            idle.push(std::mem::take(&mut self.lines));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_come_back_warm() {
        let scratch = Scratch::default();
        let address = {
            let mut buffer = scratch.take::<f32>(100);
            buffer.fill(1.0);
            buffer.as_ptr()
        };
        assert_eq!(address as usize % 64, 0);
        let again = scratch.take::<half::bf16>(30);
        assert_eq!(again.as_ptr().cast::<f32>(), address);
        assert_eq!(again.len(), 30);
        assert_eq!(scratch.take::<f32>(5000).len(), 5000);
    }
}
