//! Writing past the page cache: a checkpoint's codes are read by nobody soon, and a page of the cache for each costs more than
//! making the codes. Only whole blocks can be written so; what stands before and behind them goes the usual way.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::held::{leave_bytes, room_for_bytes};

/// What file systems want offsets, lengths and addresses to be multiples of.
const BLOCK: usize = 4096;
/// Bytes that are handed over at a time.
const STRETCH: usize = 4 << 20;
/// Fewer bytes are not worth the way.
const WORTH: usize = 1 << 20;

/// A file whose pages are not kept in memory.
#[derive(Debug)]
pub(super) struct DirectFile(File);

impl DirectFile {
    /// Opens a file that is there; none where the file system keeps all pages.
    #[cfg(target_os = "linux")]
    pub(super) fn open(path: &Path) -> Option<Self> {
        use std::os::unix::fs::OpenOptionsExt;

        let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
        File::options().write(true).custom_flags(direct).open(path).ok().map(Self)
    }

    /// Other systems have other ways.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn open(_path: &Path) -> Option<Self> {
        None
    }

    /// Writes whole blocks of `bytes`, whose place in the file is `offset`; the range of them that is written, which is empty
    /// where the file system refuses.
    pub(super) fn write_blocks(&self, bytes: &[u8], offset: u64) -> std::ops::Range<usize> {
        let begin = (offset.next_multiple_of(BLOCK as u64) - offset) as usize;
        let whole = bytes.len().saturating_sub(begin) / BLOCK * BLOCK;
        if whole < WORTH {
            return 0..0;
        }
        let mut room = room_for_bytes(STRETCH + BLOCK);
        let skipped = room.as_ptr().align_offset(BLOCK);
        let mut end = begin;
        for stretch in bytes[begin..begin + whole].chunks(STRETCH) {
            let aligned = &mut room[skipped..skipped + stretch.len()];
            aligned.copy_from_slice(stretch);
            if let Err(error) = self.write_stretch(aligned, offset + end as u64) {
                tracing::debug!("pages are kept after all: {error}");
                break;
            }
            end += stretch.len();
        }
        leave_bytes(room);
        begin..end
    }

    fn write_stretch(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.0.write_at(bytes, offset)?;
            if written == 0 || !written.is_multiple_of(BLOCK) {
                return Err(io::Error::other("a part of a block was written"));
            }
            (bytes, offset) = (&bytes[written..], offset + written as u64);
        }
        Ok(())
    }
}
