//! Which checkpoints of runs have which artifacts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use qlaunch_shared::store::{ASSEMBLY, Assembly, Key};
use qlaunch_shared::{Error, Result};

/// Checkpoints by the artifacts that they were put together from: of all jobs and attempts of all runs in a folder.
///
/// # Errors
/// A folder cannot be read. What is no checkpoint is passed over; one that cannot be understood is an error, since what it
/// has must not be taken away.
pub fn users(runs: &Path) -> Result<BTreeMap<Key, Vec<PathBuf>>> {
    let mut users: BTreeMap<Key, Vec<PathBuf>> = BTreeMap::new();
    for run in folders(runs)? {
        for job in folders(&run)? {
            let attempts = folders(&job.join("attempts"))?;
            for checkpoint in attempts.into_iter().chain([job]).map(|folder| folder.join("checkpoint")) {
                if !checkpoint.join(ASSEMBLY).exists() {
                    continue;
                }
                for key in Assembly::read(&checkpoint)?.keys() {
                    users.entry(key.clone()).or_default().push(checkpoint.clone());
                }
            }
        }
    }
    Ok(users)
}

/// Folders in a folder, ascending, hidden ones left out; an absent folder has none.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::io("read", folder, &error)),
    };
    let is_hidden =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_dir() && !is_hidden(path))
        .collect();
    found.sort();
    Ok(found)
}
