//! Hugging Face's cache: `models--ORG--NAME` with blobs by digest, snapshots of links to them, and what revisions mean.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use qlaunch_shared::checkpoint::{SINGLE, WeightIndex};
use qlaunch_shared::protocol::{self, Snapshot, SnapshotFile};
use qlaunch_shared::{Error, Result};

use super::listing::{Asked, Digest, Kind};

/// The folder of one repository in a cache.
#[derive(Debug, Clone)]
pub struct Repository {
    folder: PathBuf,
    locks: PathBuf,
}

/// How much of a model must be there for it to count as found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enough {
    /// Also its tokenizer, or the Hub's word that there is none.
    Whole,
    /// What a forward pass needs: where the Hub cannot be asked.
    Weights,
}

impl Repository {
    /// The folder of a repository.
    pub fn of(cache: &Path, asked: &Asked) -> Self {
        let kind = match asked.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        };
        let name = format!("{kind}--{}", asked.repository.replace('/', "--"));
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    /// Folder of a commit's files.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The file of a content.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join(digest.hex())
    }

    /// The file that whoever writes a content holds locked: Hugging Face's programs as well.
    pub fn lock(&self, digest: &Digest) -> PathBuf {
        self.locks.join(format!("{}.lock", digest.hex()))
    }

    /// The commit that a revision meant when it was last asked for.
    fn commit(&self, revision: &str) -> Option<String> {
        let written = fs::read_to_string(self.folder.join("refs").join(revision)).ok();
        let commit = written.map_or_else(|| revision.to_owned(), |commit| commit.trim().to_owned());
        let plain = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric());
        (plain && self.snapshot(&commit).is_dir()).then_some(commit)
    }

    /// What is asked for, if it is there.
    ///
    /// # Errors
    /// An index that cannot be read.
    pub fn find(&self, asked: &Asked, enough: Enough) -> Result<Option<Snapshot>> {
        let Some(commit) = self.commit(&asked.revision) else { return Ok(None) };
        let folder = self.snapshot(&commit);
        let names = match (asked.kind, &asked.file) {
            (Kind::Dataset, Some(file)) => vec![file.clone()],
            // Which file it is can only be told from the whole list.
            (Kind::Dataset, None) => return Ok(None),
            (Kind::Model, _) => match self.model(&commit, &folder, enough)? {
                Some(names) => names,
                None => return Ok(None),
            },
        };
        let mut files = Vec::new();
        for name in names {
            let Ok(metadata) = folder.join(&name).metadata() else { return Ok(None) };
            files.push(SnapshotFile { name, size: metadata.len(), missing: 0 });
        }
        let repository = asked.repository.clone();
        Ok(Some(Snapshot {
            version: protocol::VERSION,
            repository,
            commit,
            folder,
            files,
            headers: None,
            note: None,
        }))
    }

    /// The files of a model that is complete; none if it is not.
    fn model(&self, commit: &str, folder: &Path, enough: Enough) -> Result<Option<Vec<String>>> {
        if !folder.join("config.json").exists() {
            return Ok(None);
        }
        let tokenizer =
            folder.join("tokenizer.json").exists() || self.absent(commit, "tokenizer.json").exists();
        if enough == Enough::Whole && !tokenizer {
            return Ok(None);
        }
        let mut names = vec!["config.json".to_owned()];
        match WeightIndex::read(folder)? {
            Some(index) => names.extend(index.files().into_iter().map(str::to_owned)),
            None => names.push(SINGLE.to_owned()),
        }
        Ok(Some(names))
    }

    /// The mark that a commit is known not to have a file.
    fn absent(&self, commit: &str, name: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(name)
    }

    /// Lets a commit's folder name a content.
    pub fn link(&self, commit: &str, name: &str, digest: &Digest) -> Result<()> {
        let path = self.snapshot(commit).join(name);
        let above = "../".repeat(2 + name.matches('/').count());
        let target = PathBuf::from(format!("{above}blobs/{}", digest.hex()));
        if fs::read_link(&path).is_ok_and(|there| there == target) {
            return Ok(());
        }
        let fault = |error: std::io::Error| Error::io("link the file", &path, &error);
        make_folder(path.parent().unwrap_or(&path))?;
        // Beside and renamed, since another process may look.
        let beside = path.with_file_name(format!(".{}.{}", digest.hex(), std::process::id()));
        drop(fs::remove_file(&beside));
        symlink(&target, &beside).and_then(|()| fs::rename(&beside, &path)).map_err(fault)
    }

    /// Notes what a revision means, and whether the commit has a tokenizer: written last, since it says that all is there.
    pub fn note(&self, asked: &Asked, commit: &str, has_tokenizer: bool) -> Result<()> {
        if asked.revision != commit {
            write(&self.folder.join("refs").join(&asked.revision), commit)?;
        }
        match has_tokenizer || asked.kind == Kind::Dataset {
            true => Ok(()),
            false => write(&self.absent(commit, "tokenizer.json"), ""),
        }
    }
}

/// Makes a folder and those above it.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Error::io("make the folder", path, &error))
}

fn write(path: &Path, text: &str) -> Result<()> {
    let fault = |error: std::io::Error| Error::io("write", path, &error);
    make_folder(path.parent().unwrap_or(path))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let mut file = File::create(&beside).map_err(fault)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fault)?;
    fs::rename(&beside, path).map_err(fault)
}
