//! What may go from the store: artifacts that no checkpoint has, the oldest first, until the rest fits.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use qlaunch_shared::store::{Key, Manifest, StoreFolder};
use qlaunch_shared::{Error, Result};

/// Age from which on an unfinished artifact has nobody any more who works on it.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

/// What goes and what stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sweeping {
    removed: Vec<Key>,
    freed: u64,
    kept: u64,
}

impl Sweeping {
    /// Chooses what goes, so that no more than `most` bytes stay, or no more than checkpoints have.
    pub fn plan(mut all: Vec<Manifest>, users: &BTreeMap<Key, Vec<PathBuf>>, most: u64) -> Self {
        all.sort_by(|a, b| a.made_at.cmp(&b.made_at).then_with(|| a.key.cmp(&b.key)));
        let mut own = Self { kept: all.iter().map(Manifest::bytes).sum(), ..Self::default() };
        for manifest in all {
            if own.kept <= most {
                break;
            }
            if !users.contains_key(&manifest.key) {
                own.kept -= manifest.bytes();
                own.freed += manifest.bytes();
                own.removed.push(manifest.key);
            }
        }
        own
    }

    /// Keys of what goes.
    pub fn removed(&self) -> &[Key] {
        &self.removed
    }

    /// Bytes of what goes.
    pub const fn freed(&self) -> u64 {
        self.freed
    }

    /// Bytes of what stays.
    pub const fn kept(&self) -> u64 {
        self.kept
    }

    /// Takes it away: renamed first, so that nobody finds half of an artifact.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn carry_out(&self, store: &StoreFolder) -> Result<()> {
        for key in &self.removed {
            let (object, away) = (store.object(key), store.drafts().join(format!("old-{key}")));
            match fs::rename(&object, &away) {
                Ok(()) => fs::remove_dir_all(&away).map_err(|error| Error::io("take away", &away, &error))?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("take away", &object, &error)),
            }
        }
        Ok(())
    }
}

/// Folders of artifacts that were never finished, and of those that were broken.
///
/// # Errors
/// The store cannot be read.
pub fn leftovers(store: &StoreFolder) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for (folder, age) in [(store.drafts(), FORGOTTEN), (store.broken(), Duration::ZERO)] {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("read the store", &folder, &error)),
        };
        let is_old = |path: &PathBuf| {
            let changed = path.metadata().and_then(|found| found.modified()).ok();
            changed.and_then(|changed| changed.elapsed().ok()).is_some_and(|own| own >= age)
        };
        found.extend(entries.flatten().map(|entry| entry.path()).filter(is_old));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use qlaunch_shared::store::{Digested, Origin, Step};

    use super::*;

    fn manifest(name: &str, made_at: u64, size: u64) -> Manifest {
        let origin = Origin::new(Step::Layer, [("name", name)]);
        let file = Digested { name: "0".to_owned(), bytes: size, sha256: String::new() };
        Manifest {
            version: 1,
            key: origin.key(),
            about: name.to_owned(),
            origin,
            files: vec![file],
            host: String::new(),
            made_at,
            cpu_seconds: 0.0,
            tokens: None,
        }
    }

    #[test]
    fn the_oldest_goes_first_and_what_a_checkpoint_has_stays() {
        let all = vec![manifest("new", 3, 10), manifest("used", 1, 10), manifest("old", 2, 10)];
        let (new, used, old) = (all[0].key.clone(), all[1].key.clone(), all[2].key.clone());
        let users = BTreeMap::from([(used, vec![PathBuf::from("checkpoint")])]);
        let plan = |most| Sweeping::plan(all.clone(), &users, most);
        assert_eq!(plan(30), Sweeping { removed: vec![], freed: 0, kept: 30 });
        assert_eq!(plan(29), Sweeping { removed: vec![old.clone()], freed: 10, kept: 20 });
        assert_eq!(plan(0), Sweeping { removed: vec![old, new], freed: 20, kept: 10 });
    }
}
