//! Writing a checkpoint folder that looks whole only when it is.
//!
//! Files are made under `.qlaunch-partial/` in the folder, with all their space taken at once, so that a full disk shows
//! before any work. Publishing moves them up, weights first and `config.json` last: no loader reads a folder without it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use qlaunch_shared::checkpoint::Layout;
use qlaunch_shared::{Error, Result};

use super::shards::ShardFiles;

/// Folder of unfinished files.
const PARTIAL: &str = ".qlaunch-partial";
/// The file that makes a folder a checkpoint.
const LAST: &str = "config.json";

/// Writes a checkpoint into a folder that is absent or empty.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    partial: PathBuf,
    /// Whether the folder was made for this checkpoint.
    is_ours: bool,
    shards: ShardFiles,
    /// Weight files that were linked or copied from elsewhere.
    linked: Vec<String>,
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
        Self::begin(folder, layout, true)
    }

    /// Begins a checkpoint whose weight files are made elsewhere, and brought in by [`Writer::link`].
    ///
    /// # Errors
    /// The folder is not empty or cannot be written.
    pub fn assemble(folder: &Path, layout: &Layout) -> Result<Self> {
        Self::begin(folder, layout, false)
    }

    fn begin(folder: &Path, layout: &Layout, is_to_be_written: bool) -> Result<Self> {
        let is_ours = prepare(folder)?;
        let partial = folder.join(PARTIAL);
        std::fs::create_dir(&partial).map_err(|e| Error::io("make the folder", &partial, &e))?;
        let mut writer = Self {
            folder: folder.to_path_buf(),
            partial,
            is_ours,
            shards: ShardFiles::default(),
            linked: Vec::new(),
            companions: Vec::new(),
            published: false,
        };
        if is_to_be_written {
            let files = layout.shards.iter().map(|shard| (writer.partial.join(&shard.file), shard));
            writer.shards = ShardFiles::create(files)?;
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
        let files = layout.shards.iter().map(|shard| (partial.join(&shard.file), shard));
        Ok(Self {
            folder: folder.to_path_buf(),
            shards: ShardFiles::join(files)?,
            partial,
            is_ours: false,
            linked: Vec::new(),
            companions: Vec::new(),
            // Who created it publishes it, or takes it back.
            published: true,
        })
    }

    /// Takes the digest of each tensor while it is written.
    pub const fn take_digests(&mut self) {
        self.shards.take_digests();
    }

    /// Where tensors are written.
    pub const fn shards(&self) -> &ShardFiles {
        &self.shards
    }

    /// Brings in a weight file: by a hard link, or by a copy where the file system has none.
    ///
    /// # Errors
    /// The disk is full, or the file is gone.
    pub fn link(&mut self, name: &str, source: &Path) -> Result<()> {
        let path = self.partial.join(name);
        if let Err(error) = std::fs::hard_link(source, &path) {
            tracing::debug!("{} is copied: {error}", source.display());
            std::fs::copy(source, &path).map_err(|e| Error::io("copy the weights", source, &e))?;
            let file = File::open(&path).and_then(|file| file.sync_all());
            file.map_err(|e| Error::io("write the weights", &path, &e))?;
        }
        self.linked.push(name.to_owned());
        Ok(())
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
        self.shards.check_whole()?;
        self.shards.sync()?;
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
        let weights = self.shards.names().chain(self.linked.iter().cloned());
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use qlaunch_shared::checkpoint::{CheckpointFiles, DType, PlannedTensor};
    use qlaunch_shared::digest::sha256;

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
            writer.shards.write("b", &[5, 6, 7, 8]).unwrap();
            writer.shards.write("a", &[1, 2, 3, 4]).unwrap();
            writer.add_file(LAST, b"{}").unwrap();
            writer.publish().unwrap();
            let files = CheckpointFiles::open(&out).unwrap();
            let mapped = super::super::MappedCheckpoint::open(files).unwrap();
            assert_eq!(mapped.tensor("a").unwrap().bytes, [1, 2, 3, 4]);
            assert!(entries(&out).contains(&LAST.to_owned()));
        }
    }

    #[test]
    fn large_tensors_at_odd_places_read_back() {
        let lengths = [5, (9 << 20) + 4099, 3, 1 << 20, (2 << 20) + 1];
        let names = ["a", "b", "c", "d", "e"];
        let tensors = names.iter().zip(lengths);
        let tensors: Vec<PlannedTensor> = tensors
            .map(|(name, length)| PlannedTensor {
                name: (*name).to_owned(),
                dtype: DType::U8,
                shape: vec![length],
            })
            .collect();
        let bytes = |length: usize, seed: usize| -> Vec<u8> {
            (0..length).map(|at| (at * 31 + at / 4096 + seed) as u8).collect()
        };
        // Beside the sources, since temporary folders are often in memory.
        let work = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let out = work.path().join("out");
        let writer =
            Writer::create(&out, &Layout::plan(&tensors, u64::MAX, &BTreeMap::new()).unwrap()).unwrap();
        for (seed, (name, length)) in names.iter().zip(lengths).enumerate().rev() {
            writer.shards.write(name, &bytes(length, seed)).unwrap();
        }
        writer.publish().unwrap();
        let mapped = super::super::MappedCheckpoint::open(CheckpointFiles::open(&out).unwrap()).unwrap();
        for (seed, (name, length)) in names.iter().zip(lengths).enumerate() {
            assert!(mapped.tensor(name).unwrap().bytes == bytes(length, seed), "{name}");
        }
    }

    #[test]
    fn an_unfinished_checkpoint_leaves_nothing() {
        let work = tempfile::tempdir().unwrap();
        let out = work.path().join("out");
        let writer = Writer::create(&out, &layout(100)).unwrap();
        writer.shards.write("a", &[0; 4]).unwrap();
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
        let mut writer = Writer::create(&out, &layout(4)).unwrap();
        assert!(Writer::join(&out, &layout(100)).is_err());
        let mut other = Writer::join(&out, &layout(4)).unwrap();
        writer.take_digests();
        other.take_digests();
        other.shards.write("b", &[5, 6, 7, 8]).unwrap();
        writer.shards.write("a", &[1, 2, 3, 4]).unwrap();
        let written = other.shards.sync().unwrap();
        assert_eq!(written, [("b".to_owned(), Some(sha256([5, 6, 7, 8])))]);
        drop(other);
        written.into_iter().try_for_each(|(name, digest)| writer.shards.count(&name, digest)).unwrap();
        assert!(writer.shards.count("b", None).is_err());
        let digests: Vec<_> = writer.shards.digests().into_iter().map(|tensor| tensor.sha256).collect();
        assert_eq!(digests, [sha256([1, 2, 3, 4]), sha256([5, 6, 7, 8])]);
        writer.publish().unwrap();
        let mapped = super::super::MappedCheckpoint::open(CheckpointFiles::open(&out).unwrap()).unwrap();
        assert_eq!(mapped.tensor("b").unwrap().bytes, [5, 6, 7, 8]);
    }

    #[test]
    fn tensors_that_do_not_fit_the_layout_are_refused() {
        let work = tempfile::tempdir().unwrap();
        let writer = Writer::create(&work.path().join("out"), &layout(100)).unwrap();
        assert!(writer.shards.write("c", &[0; 4]).is_err());
        assert!(writer.shards.write("a", &[0; 3]).is_err());
        writer.shards.write("a", &[0; 4]).unwrap();
        assert!(writer.shards.write("a", &[0; 4]).is_err());
    }
}
