//! Finding artifacts: what is used was verified, and what is broken is moved away to be made again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qlaunch_shared::store::{Condition, Key, Manifest, Origin, StoreFolder};
use qlaunch_shared::{Error, ErrorKind, Result};

use super::draft::{Draft, unique};
use super::lease::{Claim, Lease, LeaseTimes};

/// How long a rename may take to be seen by another host.
const VISIBLE: Duration = Duration::from_secs(60);

/// A store that artifacts are taken from and put into.
#[derive(Debug, Clone)]
pub struct Store {
    folder: StoreFolder,
    times: LeaseTimes,
}

/// An artifact whose bytes are what its manifest says.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Its manifest.
    pub manifest: Manifest,
    folder: PathBuf,
}

impl Artifact {
    /// Path of one of its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Content of one of its files.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path(name);
        fs::read(&path).map_err(|error| Error::io("read the store", &path, &error))
    }
}

impl Store {
    /// A store in a folder, which is made.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub fn open(folder: &Path) -> Result<Self> {
        let folder = StoreFolder(folder.to_owned());
        for own in [folder.drafts(), folder.leases()] {
            fs::create_dir_all(&own).map_err(|error| Error::io("make the store", &own, &error))?;
        }
        Ok(Self { folder, times: LeaseTimes::default() })
    }

    /// The same with other times for leases.
    #[must_use]
    pub const fn with_times(mut self, times: LeaseTimes) -> Self {
        self.times = times;
        self
    }

    /// The artifact of an origin, every byte of it looked at; `None` where it has to be made. What is broken is moved
    /// away and told to `report`.
    ///
    /// # Errors
    /// A broken artifact cannot be moved away.
    pub fn get(&self, origin: &Origin, report: &mut dyn FnMut(String)) -> Result<Option<Artifact>> {
        let key = origin.key();
        match self.folder.check(&key) {
            Condition::Absent => Ok(None),
            Condition::Whole(manifest) => {
                Ok(Some(Artifact { manifest: *manifest, folder: self.folder.object(&key) }))
            }
            Condition::Broken { why } => {
                self.set_aside(&key)?;
                report(format!("the artifact {} was broken and is made again: {why}", key.short()));
                Ok(None)
            }
        }
    }

    /// Whether the artifact of an origin is there by its manifest and lengths; its bytes are looked at when it is used.
    pub fn has(&self, origin: &Origin) -> bool {
        matches!(self.folder.glance(&origin.key()), Condition::Whole(_))
    }

    /// The manifest of an artifact that another process says it has made: on some file systems a rename is seen elsewhere
    /// only after a while.
    ///
    /// # Errors
    /// It does not come.
    pub fn wait_for(&self, origin: &Origin) -> Result<Manifest> {
        let began = Instant::now();
        loop {
            let key = origin.key();
            match self.folder.glance(&key) {
                Condition::Whole(manifest) => return Ok(*manifest),
                Condition::Absent | Condition::Broken { .. } if began.elapsed() < VISIBLE => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Condition::Absent | Condition::Broken { .. } => {
                    let error = format!("the artifact {} was made, and cannot be found", key.short());
                    return Err(Error::new(ErrorKind::Resumable, error)
                        .at(&self.folder.0)
                        .hint("all ranks need the store on a disk that they share; start the job again"));
                }
            }
        }
    }

    /// Where it lies.
    pub const fn folder(&self) -> &StoreFolder {
        &self.folder
    }

    /// Takes an artifact away that is of no use any more.
    pub fn remove(&self, origin: &Origin) {
        // Renamed first, so that nobody finds half of it; what cannot be taken away is swept up by `qlaunch store gc`.
        let away = self.folder.drafts().join(format!("old-{}", unique()));
        if fs::rename(self.folder.object(&origin.key()), &away).is_ok() {
            let _ = fs::remove_dir_all(&away);
        }
    }

    /// Begins the artifact of an origin.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn draft(&self, origin: Origin, about: &str) -> Result<Draft> {
        Draft::begin(&self.folder, origin, about)
    }

    /// Claims the making of an artifact, so that nobody else makes it meanwhile.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn claim(&self, key: &Key) -> Result<Claim> {
        Lease::claim(&self.folder.leases().join(key.as_str()), self.times)
    }

    fn set_aside(&self, key: &Key) -> Result<()> {
        let broken = self.folder.broken();
        let failed = |error: std::io::Error| {
            Error::io("move a broken artifact away", &self.folder.object(key), &error)
        };
        fs::create_dir_all(&broken).map_err(failed)?;
        let target = broken.join(format!("{}-{}", key.short(), unique()));
        match fs::rename(self.folder.object(key), target) {
            // Somebody else was quicker.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            moved => moved.map_err(failed),
        }
    }
}

/// Name of this machine.
pub(super) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
