//! Writing a checkpoint folder that looks whole only when it is.
//!
//! Files are made under `.qlaunch-partial/` in the folder, with all their space taken at once, so that a full disk shows
//! before any work. Publishing moves them up, weights first and `config.json` last: no loader reads a folder without it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use qlaunch_shared::checkpoint::{Layout, Shard};
use qlaunch_shared::{Error, Result};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Folder of unfinished files.
const PARTIAL: &str = ".qlaunch-partial";
/// The file that makes a folder a checkpoint.
const LAST: &str = "config.json";

/// A tensor's place, and whether it is there.
#[derive(Debug)]
struct Slot {
    shard: usize,
    offset: u64,
    length: u64,
    written: AtomicBool,
}

/// Writes a checkpoint into a folder that is absent or empty.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    partial: PathBuf,
    /// Whether the folder was made for this checkpoint.
    is_ours: bool,
    shards: Vec<(PathBuf, File)>,
    slots: HashMap<String, Slot>,
    /// Other files, in the order they were added.
    companions: Vec<String>,
    published: bool,
}

impl Writer {
    /// Takes the space of all files of a layout and writes their headers.
    ///
    /// # Errors
    /// The folder is not empty or cannot be written, or the disk has too little space.
    pub fn create(folder: &Path, layout: &Layout) -> Result<Self> {
        let is_ours = prepare(folder)?;
        let partial = folder.join(PARTIAL);
        std::fs::create_dir(&partial).map_err(|e| Error::io("make the folder", &partial, &e))?;
        let mut writer = Self {
            folder: folder.to_path_buf(),
            partial,
            is_ours,
            shards: Vec::with_capacity(layout.shards.len()),
            slots: slots(layout),
            companions: Vec::new(),
            published: false,
        };
        for shard in &layout.shards {
            let path = writer.partial.join(&shard.file);
            let file = allocate(&path, shard, layout.bytes())?;
            writer.shards.push((path, file));
        }
        if let Some((name, text)) = &layout.index {
            writer.add_file(name, text.as_bytes())?;
        }
        Ok(writer)
    }

    /// Joins a checkpoint that another process of the same job has created, to write some of its tensors.
    ///
    /// # Errors
    /// It is not there, or of another layout.
    pub fn join(folder: &Path, layout: &Layout) -> Result<Self> {
        let partial = folder.join(PARTIAL);
        let open = |shard: &Shard| {
            let path = partial.join(&shard.file);
            let failed = |e: std::io::Error| Error::io("open the weights of another rank", &path, &e);
            let file = File::options().write(true).open(&path).map_err(failed)?;
            match file.metadata().map_err(failed)?.len() == shard.bytes {
                true => Ok((path, file)),
                false => Err(Error::bug("another rank planned another checkpoint").at(&path)),
            }
        };
        Ok(Self {
            folder: folder.to_path_buf(),
            shards: layout.shards.iter().map(open).collect::<Result<_>>()?,
            partial,
            is_ours: false,
            slots: slots(layout),
            companions: Vec::new(),
            // Who created it publishes it, or takes it back.
            published: true,
        })
    }

    /// Brings what was written to the disk, and says what it was.
    ///
    /// # Errors
    /// The disk fails.
    pub fn sync(&self) -> Result<Vec<String>> {
        for (path, file) in &self.shards {
            file.sync_all().map_err(|e| Error::io("write the weights", path, &e))?;
        }
        let written = self.slots.iter().filter(|(_, slot)| slot.written.load(Ordering::Relaxed));
        Ok(written.map(|(name, _)| name.clone()).collect())
    }

    /// Counts a tensor as written that another process wrote.
    ///
    /// # Errors
    /// It is not of the layout, or was written twice.
    pub fn count(&self, name: &str) -> Result<()> {
        let slot = self.slots.get(name).ok_or_else(|| Error::bug("the tensor was not planned").key(name))?;
        match slot.written.swap(true, Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Error::bug("the tensor was written twice").key(name)),
        }
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
        let (path, file) = &self.shards[slot.shard];
        file.write_all_at(bytes, slot.offset).map_err(|e| Error::io("write the weights", path, &e))
    }

    /// Adds a file beside the weights.
    ///
    /// # Errors
    /// The disk fails.
    pub fn add_file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.partial.join(name);
        let failed = |e: std::io::Error| Error::io("write the file", &path, &e);
        let mut file = File::create(&path).map_err(failed)?;
        file.write_all(content).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        self.companions.push(name.to_owned());
        Ok(())
    }

    /// Makes the folder a checkpoint.
    ///
    /// # Errors
    /// A tensor was never written, or the disk fails.
    pub fn publish(mut self) -> Result<()> {
        let missing = self.slots.iter().find(|(_, slot)| !slot.written.load(Ordering::Relaxed));
        if let Some((name, _)) = missing {
            return Err(Error::bug("the tensor was never written").key(name.as_str()));
        }
        for (path, file) in &self.shards {
            file.sync_all().map_err(|e| Error::io("write the weights", path, &e))?;
        }
        for name in self.names() {
            if name == LAST {
                // After a power cut, the last file must not be there without the others.
                self.sync_folder()?;
            }
            let (from, to) = (self.partial.join(&name), self.folder.join(&name));
            std::fs::rename(&from, &to).map_err(|e| Error::io("move the file", &to, &e))?;
        }
        std::fs::remove_dir(&self.partial).map_err(|e| Error::io("remove the folder", &self.partial, &e))?;
        self.sync_folder()?;
        self.published = true;
        Ok(())
    }

    fn sync_folder(&self) -> Result<()> {
        let folder = File::open(&self.folder).and_then(|folder| folder.sync_all());
        folder.map_err(|e| Error::io("write the folder", &self.folder, &e))
    }

    /// Names of all files in the order of publishing.
    fn names(&self) -> Vec<String> {
        let weights =
            self.shards.iter().filter_map(|(path, _)| Some(path.file_name()?.to_string_lossy().into_owned()));
        let mut names: Vec<String> = weights.chain(self.companions.iter().cloned()).collect();
        names.sort_by_key(|name| name == LAST);
        names
    }
}

impl Drop for Writer {
    /// Takes back what was not published, and touches nothing else.
    fn drop(&mut self) {
        if self.published {
            return;
        }
        for name in self.names() {
            // Most were never moved up: that one is missing is the rule here.
            let _ = std::fs::remove_file(self.folder.join(name));
        }
        if let Err(error) = std::fs::remove_dir_all(&self.partial) {
            tracing::warn!("unfinished files stay in {}: {error}", self.partial.display());
        }
        if self.is_ours {
            // Fails where somebody put something there, and then it must stay.
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}

/// Takes back an unfinished checkpoint for a process that has no time to end in order.
pub fn discard(folder: &Path) {
    // What cannot be removed is named to whoever writes there next.
    let _ = std::fs::remove_dir_all(folder.join(PARTIAL));
}

/// Checks that the folder is absent or empty; makes it if absent, and says so.
fn prepare(folder: &Path) -> Result<bool> {
    let failed = |e: std::io::Error| Error::io("make the output folder", folder, &e);
    match std::fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(false),
            Some(entry) if entry.as_ref().is_ok_and(|entry| entry.file_name() == PARTIAL) => {
                Err(Error::input("a run that was killed left unfinished files, or another is at work")
                    .at(folder)
                    .hint(format!("if none is at work: `rm -r {}`", folder.join(PARTIAL).display())))
            }
            Some(_) => Err(Error::input("the output folder is not empty")
                .at(folder)
                .hint("choose another folder, or empty this one")),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(folder).map_err(failed)?;
            Ok(true)
        }
        Err(e) => Err(failed(e)),
    }
}

fn slots(layout: &Layout) -> HashMap<String, Slot> {
    let of_shard = |(shard, planned): (usize, &Shard)| {
        let slot = move |tensor: &qlaunch_shared::checkpoint::TensorEntry| {
            let (offset, length) = (tensor.offset, tensor.length);
            (tensor.name.clone(), Slot { shard, offset, length, written: AtomicBool::new(false) })
        };
        planned.tensors.iter().map(slot).collect::<Vec<_>>()
    };
    layout.shards.iter().enumerate().flat_map(of_shard).collect()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use qlaunch_shared::checkpoint::{CheckpointFiles, DType, PlannedTensor};

    use super::*;

    fn layout(shard_bytes: u64) -> Layout {
        let tensor = |name: &str| PlannedTensor { name: name.to_owned(), dtype: DType::U8, shape: vec![4] };
        Layout::plan(&[tensor("a"), tensor("b")], shard_bytes, &BTreeMap::new()).unwrap()
    }

    fn entries(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .map(|entries| entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    #[test]
    fn a_published_checkpoint_reads_back() {
        for shard_bytes in [4, 100] {
            let work = tempfile::tempdir().unwrap();
            let out = work.path().join("deep/out");
            let mut writer = Writer::create(&out, &layout(shard_bytes)).unwrap();
            assert_eq!(entries(&out), [PARTIAL]);
            writer.write("b", &[5, 6, 7, 8]).unwrap();
            writer.write("a", &[1, 2, 3, 4]).unwrap();
            writer.add_file(LAST, b"{}").unwrap();
            writer.publish().unwrap();
            let files = CheckpointFiles::open(&out).unwrap();
            let mapped = super::super::MappedCheckpoint::open(files).unwrap();
            assert_eq!(mapped.tensor("a").unwrap().bytes, [1, 2, 3, 4]);
            assert!(entries(&out).contains(&LAST.to_owned()));
        }
    }

    #[test]
    fn an_unfinished_checkpoint_leaves_nothing() {
        let work = tempfile::tempdir().unwrap();
        let out = work.path().join("out");
        let writer = Writer::create(&out, &layout(100)).unwrap();
        writer.write("a", &[0; 4]).unwrap();
        let error = writer.publish().unwrap_err();
        assert_eq!(error.place.key.as_deref(), Some("b"));
        assert!(!out.exists());
        std::fs::create_dir(&out).unwrap();
        drop(Writer::create(&out, &layout(100)).unwrap());
        assert_eq!(entries(&out), [""; 0]);
    }

    #[test]
    fn a_folder_with_something_in_it_is_refused_and_kept() {
        let work = tempfile::tempdir().unwrap();
        std::fs::write(work.path().join("mine"), "x").unwrap();
        let error = Writer::create(work.path(), &layout(100)).unwrap_err();
        assert!(error.message.contains("not empty"), "{error}");
        assert_eq!(entries(work.path()), ["mine"]);
    }

    #[test]
    fn what_a_joined_process_writes_is_published_by_the_one_that_created() {
        let work = tempfile::tempdir().unwrap();
        let out = work.path().join("out");
        assert!(Writer::join(&out, &layout(4)).is_err());
        let writer = Writer::create(&out, &layout(4)).unwrap();
        assert!(Writer::join(&out, &layout(100)).is_err());
        let other = Writer::join(&out, &layout(4)).unwrap();
        other.write("b", &[5, 6, 7, 8]).unwrap();
        writer.write("a", &[1, 2, 3, 4]).unwrap();
        let written = other.sync().unwrap();
        assert_eq!(written, ["b"]);
        drop(other);
        written.iter().try_for_each(|name| writer.count(name)).unwrap();
        assert!(writer.count("b").is_err());
        writer.publish().unwrap();
        let mapped = super::super::MappedCheckpoint::open(CheckpointFiles::open(&out).unwrap()).unwrap();
        assert_eq!(mapped.tensor("b").unwrap().bytes, [5, 6, 7, 8]);
    }

    #[test]
    fn tensors_that_do_not_fit_the_layout_are_refused() {
        let work = tempfile::tempdir().unwrap();
        let writer = Writer::create(&work.path().join("out"), &layout(100)).unwrap();
        assert!(writer.write("c", &[0; 4]).is_err());
        assert!(writer.write("a", &[0; 3]).is_err());
        writer.write("a", &[0; 4]).unwrap();
        assert!(writer.write("a", &[0; 4]).is_err());
    }
}
