//! Elements of a tensor in host memory: its own, or those of a mapped file where they lie.
//!
//! Large buffers that a tensor leaves behind serve the next one of their size: fresh memory costs a fault and zeros for every
//! page, and the activations of a layer have the sizes of the last layer's.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::{Mmap, UncheckedAdvice};

use super::host::{StoredElement, cast};
use super::pages::prefer_large_pages;

/// Buffers of fewer bytes are the allocator's business: from here on it would ask the system for each.
const LARGE: usize = 128 << 10;
/// How often another buffer may be asked for before one that nobody wants is given back to the system.
const PATIENCE: usize = 64;

/// Elements that a tensor owns, or keeps mapped.
pub struct Held<E: StoredElement>(Kind<E>);

enum Kind<E> {
    /// Made elsewhere.
    Own(Vec<E>),
    /// Left to the next tensor.
    Shared(Vec<E>),
    Mapped(Arc<Pages>),
}

impl<E: StoredElement> Held<E> {
    /// Room for so many elements: whatever its last user left, or zeros.
    pub(crate) fn room(length: usize) -> Self {
        match E::unused().take(length) {
            Some(used) => Self(Kind::Shared(used)),
            None => Self(Kind::Shared(E::zeros(length))),
        }
    }

    /// A copy of some elements.
    pub(crate) fn copy(elements: &[E]) -> Self {
        if let Some(mut used) = E::unused().take(elements.len()) {
            used.copy_from_slice(elements);
            return Self(Kind::Shared(used));
        }
        let mut fresh = Vec::with_capacity(elements.len());
        prefer_large_pages(fresh.spare_capacity_mut());
        fresh.extend_from_slice(elements);
        Self(Kind::Shared(fresh))
    }

    /// The elements that some pages are, which must be aligned for them.
    pub(super) fn mapped(pages: Pages) -> Self {
        Self(Kind::Mapped(Arc::new(pages)))
    }
}

impl<E: StoredElement> From<Vec<E>> for Held<E> {
    fn from(elements: Vec<E>) -> Self {
        Self(Kind::Own(elements))
    }
}

impl<E: StoredElement> Deref for Held<E> {
    type Target = [E];

    #[inline]
    fn deref(&self) -> &[E] {
        match &self.0 {
            Kind::Own(elements) | Kind::Shared(elements) => elements,
            // They were found to be aligned when they were mapped.
            Kind::Mapped(pages) => cast(pages.bytes(), E::DTYPE).unwrap_or_default(),
        }
    }
}

impl<E: StoredElement> DerefMut for Held<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        if let Kind::Mapped(_) = self.0 {
            *self = Self::copy(self);
        }
        match &mut self.0 {
            Kind::Own(elements) | Kind::Shared(elements) => elements,
            Kind::Mapped(_) => &mut [],
        }
    }
}

impl<E: StoredElement> Clone for Held<E> {
    fn clone(&self) -> Self {
        match &self.0 {
            Kind::Own(elements) | Kind::Shared(elements) => Self::copy(elements),
            Kind::Mapped(pages) => Self(Kind::Mapped(Arc::clone(pages))),
        }
    }
}

impl<E: StoredElement> Drop for Held<E> {
    fn drop(&mut self) {
        if let Kind::Shared(elements) = &mut self.0 {
            E::unused().give(std::mem::take(elements));
        }
    }
}

impl<E: StoredElement> PartialEq for Held<E> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<E: StoredElement> fmt::Debug for Held<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Large buffers that no tensor uses at the moment, with how often they were passed over.
#[derive(Debug)]
pub struct Unused<E>(Mutex<Vec<(Vec<E>, usize)>>);

impl<E> Unused<E> {
    /// None yet.
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The smallest buffer for so many elements, unless it is much too large for them.
    fn take(&self, length: usize) -> Option<Vec<E>> {
        if length * size_of::<E>() < LARGE {
            return None;
        }
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = buffers.iter().enumerate().filter(|(_, (buffer, _))| {
            let waste = buffer.len().checked_sub(length);
            waste.is_some_and(|waste| waste <= length / 8)
        });
        let best = fitting.min_by_key(|(_, (buffer, _))| buffer.len()).map(|(index, _)| index);
        let found = best.map(|index| buffers.swap_remove(index).0);
        buffers.retain_mut(|(_, passed_over)| {
            *passed_over += 1;
            *passed_over < PATIENCE
        });
        drop(buffers);
        found.map(|mut buffer| {
            buffer.truncate(length);
            buffer
        })
    }

    fn give(&self, buffer: Vec<E>) {
        if size_of_val(buffer.as_slice()) >= LARGE {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((buffer, 0));
        }
    }
}

static BYTES: Unused<u8> = Unused::new();

/// Room for so many bytes, which whoever used it last may have left anything in; [`leave_bytes`] takes it back.
pub(crate) fn room_for_bytes(length: usize) -> Vec<u8> {
    BYTES.take(length).unwrap_or_else(|| {
        let mut fresh = vec![0; length];
        prefer_large_pages(&mut fresh);
        fresh
    })
}

/// Leaves bytes to the next one who asks for room.
pub(crate) fn leave_bytes(bytes: Vec<u8>) {
    BYTES.give(bytes);
}

/// Some bytes of a mapped file, whose pages are given back when nobody reads them any more.
#[derive(Debug)]
pub(super) struct Pages {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl Pages {
    /// A range of a map; an empty one where it ends outside.
    pub(super) fn new(map: &Arc<Mmap>, range: Range<usize>) -> Self {
        Self { map: Arc::clone(map), range }
    }

    /// Asks the system to map all of them at once, which is cheaper than a fault for every few. It may refuse: nothing but speed
    /// changes.
    pub(super) fn populate(&self) {
        #[cfg(target_os = "linux")]
        if self.range.len() >= LARGE {
            // Older kernels do not know this advice.
            let _ = self.map.advise_range(memmap2::Advice::PopulateRead, self.range.start, self.range.len());
        }
    }

    /// What they hold.
    pub(super) fn bytes(&self) -> &[u8] {
        self.map.get(self.range.clone()).unwrap_or_default()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let page = rustix::param::page_size();
        // Pages shared with a neighbour may be in use.
        let (begin, end) = (self.range.start.next_multiple_of(page), self.range.end / page * page);
        if begin >= end {
            return;
        }
        // SAFETY: the map is read-only and backed by a file: pages that are dropped are read again with the same content,
        // so no reference into them changes.
        let advised =
            unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, begin, end - begin) };
        if let Err(error) = advised {
            tracing::debug!("{} bytes of weights were not given back: {error}", end - begin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tensor_leaves_serves_the_next_of_its_size() {
        // A size that no other test of this process uses.
        let length = LARGE + 12_345;
        let mut first = Held::<f32>::room(length);
        assert!(first.iter().all(|value| *value == 0.0));
        first.fill(1.0);
        let address = first.as_ptr();
        drop(first);
        let second = Held::<f32>::room(length - 5);
        assert_eq!((second.as_ptr(), second.len()), (address, length - 5));
        assert_ne!(Held::<f32>::room(length).as_ptr(), address);
        drop(second);
        let copied = Held::copy(&vec![2.0f32; length - 5]);
        assert_eq!(copied.as_ptr(), address);
        assert!(copied.iter().all(|value| *value == 2.0));
    }

    #[test]
    fn a_buffer_that_nobody_wants_is_given_back() {
        let unused = Unused::<u8>::new();
        unused.give(vec![0; LARGE]);
        unused.give(vec![0; 2 * LARGE]);
        unused.give(vec![0; LARGE - 1]);
        assert_eq!(unused.take(3 * LARGE), None);
        assert_eq!(unused.take(LARGE - 1), None);
        for _ in 0..PATIENCE {
            unused.give(unused.take(LARGE).unwrap());
        }
        assert_eq!(unused.take(2 * LARGE), None);
        assert!(unused.take(LARGE).is_some());
    }
}
