//! An artifact while it is written: a folder that is renamed into place when all of it is on disk.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use qlaunch_shared::digest::{hex, sha256_of_file};
use qlaunch_shared::store::{Digested, Key, MANIFEST, Manifest, Origin, StoreFolder, VERSION};
use qlaunch_shared::{Error, Result};
use sha2::{Digest, Sha256};

use super::open::host;

/// An unfinished artifact. Dropping it takes it away.
#[derive(Debug)]
pub struct Draft {
    store: StoreFolder,
    folder: PathBuf,
    origin: Origin,
    key: Key,
    about: String,
    files: Vec<Digested>,
    tokens: Option<u64>,
}

/// A file of a draft, hashed while it is written.
#[derive(Debug)]
pub struct DraftFile<'a> {
    draft: &'a mut Draft,
    path: PathBuf,
    file: File,
    name: String,
    hash: Sha256,
    bytes: u64,
}

impl Draft {
    /// Begins an artifact of this origin.
    pub(super) fn begin(store: &StoreFolder, origin: Origin, about: &str) -> Result<Self> {
        let key = origin.key();
        let folder = store.drafts().join(format!("{}-{}", key.short(), unique()));
        fs::create_dir_all(&folder).map_err(|error| Error::io("write to the store", &folder, &error))?;
        Ok(Self {
            store: store.clone(),
            folder,
            origin,
            key,
            about: about.to_owned(),
            files: Vec::new(),
            tokens: None,
        })
    }

    /// Says how many tokens were sent through a layer for it.
    pub const fn came_of(&mut self, tokens: u64) {
        self.tokens = Some(tokens);
    }

    /// Begins a file of it.
    ///
    /// # Errors
    /// The disk is full or the store cannot be written.
    pub fn file(&mut self, name: &str) -> Result<DraftFile<'_>> {
        let path = self.folder.join(name);
        let file = File::create_new(&path).map_err(|error| Error::io("write to the store", &path, &error))?;
        Ok(DraftFile { draft: self, path, file, name: name.to_owned(), hash: Sha256::new(), bytes: 0 })
    }

    /// Writes a whole file.
    ///
    /// # Errors
    /// As [`Draft::file`].
    pub fn add(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let mut file = self.file(name)?;
        file.write(content)?;
        file.finish()
    }

    /// Path of a file of it that somebody else is to write, before [`Draft::adopt`].
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Takes in a file that lies at its path, whole and on the disk.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn adopt(&mut self, name: &str) -> Result<()> {
        let (sha256, bytes) = sha256_of_file(&self.path(name))?;
        self.files.push(Digested { name: name.to_owned(), bytes, sha256 });
        Ok(())
    }

    /// Makes it an artifact. Somebody else may have made the same one meanwhile; either is right, and one stays.
    ///
    /// # Errors
    /// The disk is full or the store cannot be written.
    pub fn commit(mut self, cpu_seconds: f64) -> Result<Key> {
        let manifest = Manifest {
            version: VERSION,
            key: self.key.clone(),
            about: std::mem::take(&mut self.about),
            origin: self.origin.clone(),
            files: std::mem::take(&mut self.files),
            host: host(),
            made_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            cpu_seconds,
            tokens: self.tokens,
        };
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| Error::bug(format!("cannot spell a manifest: {error}")))?;
        let path = self.folder.join(MANIFEST);
        let failed = |error: std::io::Error| Error::io("write to the store", &path, &error);
        for file in &manifest.files {
            // Checkpoints have these files by hard links: nobody may write to them.
            let path = self.path(&file.name);
            let mode = fs::Permissions::from_mode(0o444);
            fs::set_permissions(&path, mode)
                .map_err(|error| Error::io("write to the store", &path, &error))?;
        }
        let mut file = File::create_new(&path).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        sync_folder(&self.folder)?;
        let target = self.store.object(&self.key);
        if let Some(group) = target.parent() {
            fs::create_dir_all(group).map_err(|error| Error::io("write to the store", group, &error))?;
            match fs::rename(&self.folder, &target) {
                Ok(()) => sync_folder(group)?,
                // What lies there has this name because it has this origin.
                Err(error)
                    if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) => {}
                Err(error) => return Err(Error::io("write to the store", &target, &error)),
            }
        }
        Ok(self.key.clone())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a commit there is nothing left of it; what cannot be taken away is swept up by `qlaunch store gc`.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl DraftFile<'_> {
    /// Appends bytes.
    ///
    /// # Errors
    /// The disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io("write to the store", &self.path, &error))?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Puts it on disk.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(self) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io("write to the store", &self.path, &error))?;
        let file = Digested { name: self.name, bytes: self.bytes, sha256: hex(self.hash.finalize()) };
        self.draft.files.push(file);
        Ok(())
    }
}

/// A name that no other process or thread has: host, process, moment and count.
pub fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{}-{moment:x}-{count}", host(), std::process::id())
}

/// Makes sure that names in a folder survive a power cut. Some file systems have no such thing, and need none.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    match File::open(folder).and_then(|file| file.sync_all()) {
        Err(error) if !matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Err(Error::io("write to the store", folder, &error))
        }
        _ => Ok(()),
    }
}
