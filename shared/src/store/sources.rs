//! Digests of source tensors, kept so that a model of terabytes is read once: a file whose path, length, time of change and
//! inode are what they were has the bytes that it had.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::StoreFolder;
use crate::digest::sha256;
use crate::model::Model;
use crate::{Error, Result};

/// The version that this program writes.
const VERSION: u32 = 1;

/// What was read of the files of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDigests {
    version: u32,
    files: BTreeMap<PathBuf, SourceFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SourceFile {
    stamp: Stamp,
    /// SHA-256 by name of the tensor.
    tensors: BTreeMap<String, String>,
}

/// What tells that a file is the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: u128,
    inode: u64,
}

impl Stamp {
    pub(super) fn of(path: &Path) -> Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let failed = |error: std::io::Error| Error::io("look at", path, &error);
        let found = fs::metadata(path).map_err(failed)?;
        let modified = found.modified().map_err(failed)?.duration_since(UNIX_EPOCH);
        Ok(Self {
            bytes: found.len(),
            modified: modified.map_or(0, |since| since.as_nanos()),
            inode: found.ino(),
        })
    }
}

impl SourceDigests {
    /// What is known of a model's files as they are now; tensors of files that changed are not in it.
    ///
    /// # Errors
    /// A file of the model is gone.
    pub fn read(store: &StoreFolder, model: &Model) -> Result<Self> {
        let own = place(store, model);
        let known: Option<Self> = fs::read(own).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut known = known
            .filter(|known| known.version == VERSION)
            .unwrap_or_else(|| Self { version: VERSION, files: BTreeMap::new() });
        let mut files = BTreeMap::new();
        for header in &model.files.headers {
            let stamp = Stamp::of(&header.path)?;
            let same = known.files.remove(&header.path).filter(|file| file.stamp == stamp);
            let file = same.unwrap_or_else(|| SourceFile { stamp, tensors: BTreeMap::new() });
            files.insert(header.path.clone(), file);
        }
        known.files = files;
        Ok(known)
    }

    /// Digests by name of the tensor.
    pub fn by_name(&self) -> BTreeMap<String, String> {
        self.files.values().flat_map(|file| file.tensors.clone()).collect()
    }

    /// Notes digests of tensors.
    pub fn add(&mut self, model: &Model, digests: BTreeMap<String, String>) {
        for (name, digest) in digests {
            let file = model.files.find(&name).and_then(|(header, _)| self.files.get_mut(&header.path));
            if let Some(file) = file {
                file.tensors.insert(name, digest);
            }
        }
    }

    /// Forgets what a store knows of a model, to have every tensor read again.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn forget(store: &StoreFolder, model: &Model) -> Result<()> {
        let path = place(store, model);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("write to the store", &path, &error))
            }
            _ => Ok(()),
        }
    }

    /// Keeps it in the store. A file that changed while it was read is not kept.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn write(&self, store: &StoreFolder, model: &Model, unique: &str) -> Result<()> {
        let path = place(store, model);
        let failed = |error: std::io::Error| Error::io("write to the store", &path, &error);
        let mut kept = self.clone();
        kept.files.retain(|path, file| Stamp::of(path).is_ok_and(|now| now == file.stamp));
        let text = serde_json::to_vec(&kept)
            .map_err(|error| Error::bug(format!("cannot spell digests: {error}")))?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let draft = path.with_extension(unique);
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path)).map_err(failed)
    }
}

fn place(store: &StoreFolder, model: &Model) -> PathBuf {
    let name = sha256(model.folder.to_string_lossy().as_bytes());
    store.0.join("sources").join(format!("{}.json", &name[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_known_until_the_file_changes() {
        let work = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-llama");
        for entry in fs::read_dir(&source).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), work.path().join(entry.file_name())).unwrap();
        }
        let model = Model::open(work.path()).unwrap();
        let store = StoreFolder(work.path().join("store"));
        let mut digests = SourceDigests::read(&store, &model).unwrap();
        assert!(digests.by_name().is_empty());
        let all = model.files.tensors().map(|tensor| (tensor.name.clone(), sha256(&tensor.name)));
        digests.add(&model, all.collect());
        digests.write(&store, &model, "draft").unwrap();
        let again = SourceDigests::read(&store, &model).unwrap();
        assert_eq!(again, digests);
        assert_eq!(again.by_name().len(), model.files.tensors().count());
        SourceDigests::forget(&store, &model).unwrap();
        assert!(SourceDigests::read(&store, &model).unwrap().by_name().is_empty());
        digests.write(&store, &model, "draft").unwrap();
        let file = &model.files.headers[0].path;
        let bytes = fs::read(file).unwrap();
        fs::remove_file(file).unwrap();
        fs::write(file, &bytes).unwrap();
        assert!(SourceDigests::read(&store, &model).unwrap().by_name().is_empty());
        fs::write(place(&store, &model), "torn").unwrap();
        assert!(SourceDigests::read(&store, &model).unwrap().by_name().is_empty());
    }
}
