//! Weight files while they are written: of their final length from the start, so that a full disk shows before any work,
//! and open to any thread or rank at any tensor.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use qlaunch_shared::checkpoint::{Shard, TensorEntry};
use qlaunch_shared::digest::sha256;
use qlaunch_shared::store::Digested;
use qlaunch_shared::{Error, Result};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::direct::DirectFile;

/// A tensor's place, and whether it is there.
#[derive(Debug)]
struct Slot {
    shard: usize,
    offset: u64,
    length: u64,
    written: AtomicBool,
    /// SHA-256 of what was written, where digests are wanted.
    digest: OnceLock<String>,
}

/// A weight file.
#[derive(Debug)]
struct ShardFile {
    path: PathBuf,
    file: File,
    /// The same past the page cache, where its system can do that.
    direct: Option<DirectFile>,
}

impl ShardFile {
    fn write(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        let done = self.direct.as_ref().map_or(0..0, |direct| direct.write_blocks(bytes, offset));
        self.file.write_all_at(&bytes[..done.start], offset)?;
        self.file.write_all_at(&bytes[done.end..], offset + done.end as u64)
    }
}

/// Weight files whose tensors are written in any order.
#[derive(Debug, Default)]
pub struct ShardFiles {
    files: Vec<ShardFile>,
    slots: HashMap<String, Slot>,
    has_digests: bool,
}

impl ShardFiles {
    /// Takes the space of files and writes their headers.
    ///
    /// # Errors
    /// The disk has too little space.
    pub fn create<'s>(shards: impl Iterator<Item = (PathBuf, &'s Shard)>) -> Result<Self> {
        let shards: Vec<(PathBuf, &Shard)> = shards.collect();
        let needed = shards.iter().map(|(_, shard)| shard.bytes).sum();
        let mut own = Self::default();
        for (path, shard) in shards {
            let file = allocate(&path, shard, needed)?;
            own.add(path, file, shard);
        }
        Ok(own)
    }

    /// Opens files that another process of the same job has created.
    ///
    /// # Errors
    /// They are not there, or of another layout.
    pub fn join<'s>(shards: impl Iterator<Item = (PathBuf, &'s Shard)>) -> Result<Self> {
        let mut own = Self::default();
        for (path, shard) in shards {
            let failed = |e: std::io::Error| Error::io("open the weights of another rank", &path, &e);
            let file = File::options().write(true).open(&path).map_err(failed)?;
            if file.metadata().map_err(failed)?.len() != shard.bytes {
                return Err(Error::bug("another rank planned another checkpoint").at(&path));
            }
            own.add(path, file, shard);
        }
        Ok(own)
    }

    fn add(&mut self, path: PathBuf, file: File, planned: &Shard) {
        let shard = self.files.len();
        self.files.push(ShardFile { direct: DirectFile::open(&path), path, file });
        let slot = |tensor: &TensorEntry| {
            let (offset, length) = (tensor.offset, tensor.length);
            let (written, digest) = (AtomicBool::new(false), OnceLock::new());
            (tensor.name.clone(), Slot { shard, offset, length, written, digest })
        };
        self.slots.extend(planned.tensors.iter().map(slot));
    }

    /// Takes the digest of each tensor while it is written.
    pub const fn take_digests(&mut self) {
        self.has_digests = true;
    }

    /// Brings what was written to the disk, and says what it was; with digests where they are taken.
    ///
    /// # Errors
    /// The disk fails.
    pub fn sync(&self) -> Result<Vec<(String, Option<String>)>> {
        for ShardFile { path, file, .. } in &self.files {
            file.sync_all().map_err(|e| Error::io("write the weights", path, &e))?;
        }
        let written = self.slots.iter().filter(|(_, slot)| slot.written.load(Ordering::Relaxed));
        Ok(written.map(|(name, slot)| (name.clone(), slot.digest.get().cloned())).collect())
    }

    /// Counts a tensor as written that another process wrote, with this digest.
    ///
    /// # Errors
    /// It is not of the layout, or was written twice.
    pub fn count(&self, name: &str, digest: Option<String>) -> Result<()> {
        let slot = self.slots.get(name).ok_or_else(|| Error::bug("the tensor was not planned").key(name))?;
        digest.into_iter().for_each(|digest| drop(slot.digest.set(digest)));
        match slot.written.swap(true, Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Error::bug("the tensor was written twice").key(name)),
        }
    }

    /// All tensors with their digests, by name; none where no digests are taken.
    pub fn digests(&self) -> Vec<Digested> {
        let digested = |(name, slot): (&String, &Slot)| {
            let (name, sha256) = (name.clone(), slot.digest.get()?.clone());
            Some(Digested { name, bytes: slot.length, sha256 })
        };
        let mut digests: Vec<Digested> = self.slots.iter().filter_map(digested).collect();
        digests.sort_by(|left, right| left.name.cmp(&right.name));
        digests
    }

    /// Writes a tensor at its place; from any thread.
    ///
    /// # Errors
    /// The disk fails, or the tensor is not of the layout, of another length, or written twice.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let slot = self.slots.get(name).ok_or_else(|| Error::bug("the tensor was not planned").key(name))?;
        if slot.length != bytes.len() as u64 {
            return Err(Error::bug(format!("{} bytes instead of {}", bytes.len(), slot.length)).key(name));
        }
        if slot.written.swap(true, Ordering::Relaxed) {
            return Err(Error::bug("the tensor was written twice").key(name));
        }
        let shard = &self.files[slot.shard];
        let write = || shard.write(bytes, slot.offset);
        let written = match self.has_digests {
            false => write(),
            true => rayon::join(write, || slot.digest.set(sha256(bytes))).0,
        };
        written.map_err(|e| Error::io("write the weights", &shard.path, &e))
    }

    /// Checks that every tensor was written.
    ///
    /// # Errors
    /// One was not.
    pub fn check_whole(&self) -> Result<()> {
        match self.slots.iter().find(|(_, slot)| !slot.written.load(Ordering::Relaxed)) {
            Some((name, _)) => Err(Error::bug("the tensor was never written").key(name.as_str())),
            None => Ok(()),
        }
    }

    /// Names of the files.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.files.iter().filter_map(|shard| Some(shard.path.file_name()?.to_string_lossy().into_owned()))
    }
}

/// Makes a file of its final length, with its blocks reserved where the file system can do that.
fn allocate(path: &Path, shard: &Shard, needed: u64) -> Result<File> {
    let failed = |e: std::io::Error| {
        let error = Error::io("take the space of the weights", path, &e);
        match e.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Error { message: format!("{} (the weights need {needed} bytes)", error.message), ..error }
            }
            _ => error,
        }
    };
    let file = File::create_new(path).map_err(failed)?;
    match fallocate(&file, FallocateFlags::empty(), 0, shard.bytes) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(shard.bytes).map_err(failed)?,
        Err(error) => return Err(failed(error.into())),
    }
    file.write_all_at(&shard.header, 0).map_err(failed)?;
    Ok(file)
}
