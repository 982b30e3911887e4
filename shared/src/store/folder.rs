//! The store's folder: where things lie, what is there, and whether it is what its manifest says.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Key, MANIFEST, Manifest, VERSION};
use crate::digest::sha256_of_file;
use crate::{Error, Result};

/// A store's folder, which need not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFolder(pub PathBuf);

/// How an artifact was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// It is not there.
    Absent,
    /// It is there, and every byte is what its manifest says.
    Whole(Box<Manifest>),
    /// It must not be used.
    Broken {
        /// What is wrong with it.
        why: String,
    },
}

impl StoreFolder {
    /// Folder of an artifact.
    pub fn object(&self, key: &Key) -> PathBuf {
        self.0.join("objects").join(&key.as_str()[..2]).join(key.as_str())
    }

    /// A file of an artifact.
    pub fn file(&self, key: &Key, name: &str) -> PathBuf {
        self.object(key).join(name)
    }

    /// Folder in which artifacts are written before they are renamed into place; on the same file system.
    pub fn drafts(&self) -> PathBuf {
        self.0.join("drafts")
    }

    /// Folder of leases: who is making what.
    pub fn leases(&self) -> PathBuf {
        self.0.join("leases")
    }

    /// Folder to which broken artifacts are moved.
    pub fn broken(&self) -> PathBuf {
        self.0.join("broken")
    }

    /// Folder of lists of what runs use.
    pub fn uses(&self) -> PathBuf {
        self.0.join("uses")
    }

    /// Keys of all artifacts, ascending. Names that are no keys are somebody else's and are left alone.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn keys(&self) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        for group in names(&self.0.join("objects"))? {
            let folder = self.0.join("objects").join(&group);
            let found = names(&folder)?.into_iter().filter(|name| name.starts_with(&group));
            keys.extend(found.filter_map(|name| name.parse::<Key>().ok()));
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// The key that starts with these digits.
    ///
    /// # Errors
    /// None does, or several do.
    pub fn find(&self, digits: &str) -> Result<Key> {
        let mut found = self.keys()?.into_iter().filter(|key| key.as_str().starts_with(digits));
        match (found.next(), found.next()) {
            (Some(key), None) => Ok(key),
            (None, _) => Err(Error::input(format!("the store has no artifact `{digits}`"))
                .at(&self.0)
                .hint("`qlaunch store ls` lists them")),
            (Some(_), Some(_)) => Err(Error::input(format!("several artifacts start with `{digits}`"))
                .at(&self.0)
                .hint("give more of its digits")),
        }
    }

    /// The manifest of an artifact, if it is there with files of the right lengths; contents are not looked at.
    pub fn glance(&self, key: &Key) -> Condition {
        let path = self.file(key, MANIFEST);
        let broken = |why: String| Condition::Broken { why };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && !self.object(key).exists() => {
                return Condition::Absent;
            }
            Err(error) => return broken(format!("`{MANIFEST}` cannot be read: {error}")),
        };
        let manifest: Manifest = match serde_json::from_slice(&text) {
            Ok(manifest) => manifest,
            Err(error) => return broken(format!("`{MANIFEST}` is no manifest: {error}")),
        };
        if manifest.version != VERSION {
            return broken(format!("`{MANIFEST}` has version {}, known is {VERSION}", manifest.version));
        }
        if manifest.key != *key || manifest.origin.key() != *key {
            return broken(format!("`{MANIFEST}` describes another artifact"));
        }
        for file in &manifest.files {
            if file.name.contains('/') || file.name.starts_with('.') {
                return broken(format!("`{MANIFEST}` names a file `{}`", file.name));
            }
            match fs::metadata(self.file(key, &file.name)) {
                Ok(found) if found.len() == file.bytes => {}
                Ok(found) => {
                    return broken(format!("`{}` has {} bytes, not {}", file.name, found.len(), file.bytes));
                }
                Err(error) => return broken(format!("`{}` cannot be read: {error}", file.name)),
            }
        }
        Condition::Whole(Box::new(manifest))
    }

    /// Looks at every byte of an artifact.
    pub fn check(&self, key: &Key) -> Condition {
        let Condition::Whole(manifest) = self.glance(key) else { return self.glance(key) };
        for file in &manifest.files {
            match sha256_of_file(&self.file(key, &file.name)) {
                Ok((digest, _)) if digest == file.sha256 => {}
                Ok(_) => {
                    return Condition::Broken {
                        why: format!("`{}` has other bytes than were written", file.name),
                    };
                }
                Err(error) => return Condition::Broken { why: error.message },
            }
        }
        Condition::Whole(manifest)
    }
}

/// Names in a folder, ascending; an absent folder has none.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::io("read the store", folder, &error)),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok().and_then(|entry| entry.file_name().into_string().ok()))
        .collect();
    names.sort_unstable();
    Ok(names)
}
