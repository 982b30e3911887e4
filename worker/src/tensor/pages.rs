//! Large pages behind large buffers: fresh memory costs a fault for every page that is touched first, and activations are fresh
//! memory in every layer.

/// Buffers from here on are worth a call to the system; a large page of x86-64 has 2 MiB.
const WORTH: usize = 4 << 20;

/// Asks the system to put large pages behind a buffer that was not touched yet. It may refuse: nothing but speed changes.
pub(crate) fn prefer_large_pages<E>(buffer: &mut [E]) {
    let bytes = size_of_val(buffer);
    if bytes >= WORTH {
        advise(buffer.as_mut_ptr().cast(), bytes);
    }
}

#[cfg(target_os = "linux")]
fn advise(begin: *mut u8, bytes: usize) {
    use rustix::mm::{Advice, madvise};

    let page = rustix::param::page_size();
    // Pages that lie in the buffer as a whole.
    let skipped = begin.align_offset(page);
    let whole = bytes.saturating_sub(skipped) / page * page;
    if whole > 0 {
        // SAFETY: the range lies in the caller's buffer, and this advice changes no contents.
        let refused = unsafe { madvise(begin.add(skipped).cast(), whole, Advice::LinuxHugepage) };
        // A system without large pages is as good, only slower.
        let _ = refused;
    }
}

#[cfg(not(target_os = "linux"))]
fn advise(_begin: *mut u8, _bytes: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_keeps_contents_and_takes_any_size() {
        for length in [0, 1, WORTH - 1, WORTH, WORTH + 4097] {
            let mut bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            prefer_large_pages(&mut bytes);
            assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == at as u8));
        }
    }
}
