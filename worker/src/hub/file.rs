//! One file brought into the cache: it goes on where it stopped, and takes its name only when its digest is right.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use qlaunch_shared::digest::hex;
use qlaunch_shared::{Error, ErrorKind, Result};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::cache::{Repository, make_folder};
use super::client::{Answer, Client, Fault};
use super::listing::{Digest, Listed};

/// Tries in a row without a byte.
const TRIES: u32 = 6;
/// First wait between two of them; each is twice the one before.
const WAIT: Duration = Duration::from_millis(250);
/// How often bytes of a wrong digest are thrown away and asked for anew.
const WRONG: u32 = 1;

/// Whoever is told how it goes on.
pub trait Progress: Sync {
    /// So many more bytes are there; fewer where some were thrown away.
    fn arrived(&self, bytes: i64);
    /// Something is tried again.
    fn again(&self, error: &Error);
}

/// Asks until there is an answer that does not say "later".
///
/// # Errors
/// The last refusal.
pub fn patiently<T>(
    tries: u32,
    progress: &dyn Progress,
    mut ask: impl FnMut() -> Result<T, Fault>,
) -> Result<T> {
    let mut failures = 0;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(Fault::Final(error)) => return Err(error),
            Err(Fault::Again { error, .. }) if failures + 1 >= tries => return Err(error),
            Err(Fault::Again { error, wait }) => {
                progress.again(&error);
                std::thread::sleep(wait.unwrap_or(WAIT * (1 << failures)));
                failures += 1;
            }
        }
    }
}

/// Bytes of a file that have not arrived yet.
pub fn missing(repository: &Repository, file: &Listed) -> u64 {
    let blob = repository.blob(&file.digest);
    if blob.exists() {
        return 0;
    }
    let there = part(&blob).metadata().map_or(0, |metadata| metadata.len());
    file.size - there.min(file.size)
}

/// Brings a file into the cache unless it is there.
///
/// # Errors
/// A Hub that gives up or gives something else than it announced, a disk that is full.
pub fn bring_file(
    client: &Client,
    address: &str,
    (repository, file): (&Repository, &Listed),
    progress: &dyn Progress,
) -> Result<()> {
    let blob = repository.blob(&file.digest);
    if blob.exists() {
        return Ok(());
    }
    make_folder(blob.parent().unwrap_or(&blob))?;
    let _held = hold(&repository.lock(&file.digest))?;
    // Somebody else may have brought it meanwhile.
    if blob.exists() {
        progress.arrived(i64::try_from(file.size).unwrap_or(i64::MAX));
        return Ok(());
    }
    let mut part = Part::open(part(&blob), file)?;
    let mut wrong = 0;
    loop {
        patiently(TRIES, progress, || part.go_on(client, address, progress))?;
        match part.settle(&blob)? {
            true => return Ok(()),
            false if wrong < WRONG => {
                wrong += 1;
                progress.arrived(-i64::try_from(file.size).unwrap_or(i64::MAX));
                part.begin_anew()?;
            }
            false => {
                part.begin_anew()?;
                let message = format!("what arrives of `{}` is not what the Hub announces", file.name);
                return Err(Error::new(ErrorKind::Unreachable, message).at(blob).hint(
                    "a proxy or mirror may be at fault: check HTTPS_PROXY and HF_ENDPOINT, and try again",
                ));
            }
        }
    }
}

/// What of a file is there, as Hugging Face's programs call it.
fn part(blob: &Path) -> PathBuf {
    let mut name = blob.as_os_str().to_owned();
    name.push(".incomplete");
    PathBuf::from(name)
}

/// Waits until nobody else writes the content. File systems that know no locks are trusted to the digest.
fn hold(path: &Path) -> Result<File> {
    make_folder(path.parent().unwrap_or(path))?;
    let fault = |error: std::io::Error| Error::io("lock", path, &error);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(fault)?;
    // An error means that there are no locks here.
    let _ = rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive);
    Ok(file)
}

/// The first bytes of a file, with the digest of them.
struct Part<'a> {
    path: PathBuf,
    wanted: &'a Listed,
    file: File,
    there: u64,
    hash: Hash,
}

enum Hash {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hash {
    fn of(file: &Listed) -> Self {
        match file.digest {
            Digest::Sha256(_) => Self::Sha256(Sha256::new()),
            Digest::Git(_) => {
                let mut hash = Sha1::new();
                hash.update(format!("blob {}\0", file.size));
                Self::Git(hash)
            }
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Git(hash) => hash.update(bytes),
        }
    }

    fn hex(&self) -> String {
        match self {
            Self::Sha256(hash) => hex(hash.clone().finalize()),
            Self::Git(hash) => hex(hash.clone().finalize()),
        }
    }
}

impl<'a> Part<'a> {
    /// What an earlier try left, read for its digest.
    fn open(path: PathBuf, wanted: &'a Listed) -> Result<Self> {
        let fault = |error: std::io::Error| Error::io("write", &path, &error);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(fault)?;
        let mut hash = Hash::of(wanted);
        let mut buffer = vec![0; 1 << 20];
        let mut there = 0;
        loop {
            let count = file.read(&mut buffer).map_err(fault)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            there += count as u64;
        }
        let mut part = Self { path, wanted, file, there, hash };
        if part.there > wanted.size {
            part.begin_anew()?;
        }
        Ok(part)
    }

    fn begin_anew(&mut self) -> Result<()> {
        let fault = |error: std::io::Error| Error::io("write", &self.path, &error);
        self.file.set_len(0).map_err(fault)?;
        self.file.seek(SeekFrom::Start(0)).map_err(fault)?;
        self.there = 0;
        self.hash = Hash::of(self.wanted);
        Ok(())
    }

    /// Asks for the rest until all is there; an answer that ends early and brought something is asked on at once.
    fn go_on(&mut self, client: &Client, address: &str, progress: &dyn Progress) -> Result<(), Fault> {
        while self.there < self.wanted.size {
            let answer = client.get(address, self.there, None)?;
            if answer.from != self.there {
                // The server does not know of ranges: what is there comes again.
                progress.arrived(-i64::try_from(self.there).unwrap_or(0));
                self.begin_anew().map_err(Fault::Final)?;
            }
            let before = self.there;
            let ended = self.take(answer, progress)?;
            if self.there == before {
                let why = ended.map_or_else(|| "the connection ended".to_owned(), |error| error.to_string());
                let message = format!("nothing more arrives of `{}`: {why}", self.wanted.name);
                let error = Error::new(ErrorKind::Unreachable, message)
                    .hint("give the same command again: it goes on there");
                return Err(Fault::Again { error, wait: None });
            }
        }
        Ok(())
    }

    /// Writes what an answer brings; why it ended early, if it did.
    fn take(&mut self, mut answer: Answer, progress: &dyn Progress) -> Result<Option<std::io::Error>, Fault> {
        let mut buffer = vec![0; 1 << 20];
        while self.there < self.wanted.size {
            let count = match answer.body.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => count,
                Err(error) => return Ok(Some(error)),
            };
            // A longer answer than was announced is noticed by its digest.
            let left = usize::try_from(self.wanted.size - self.there).unwrap_or(usize::MAX);
            let bytes = &buffer[..count.min(left)];
            self.file
                .write_all(bytes)
                .map_err(|error| Fault::Final(Error::io("write", &self.path, &error)))?;
            self.hash.update(bytes);
            self.there += bytes.len() as u64;
            progress.arrived(i64::try_from(bytes.len()).unwrap_or(0));
        }
        Ok(None)
    }

    /// Gives the file its name, if its digest is right.
    fn settle(&mut self, blob: &Path) -> Result<bool> {
        if self.hash.hex() != self.wanted.digest.hex() {
            return Ok(false);
        }
        let fault = |error: std::io::Error| Error::io("write", &self.path, &error);
        self.file.sync_all().map_err(fault)?;
        fs::rename(&self.path, blob).map_err(fault)?;
        Ok(true)
    }
}
