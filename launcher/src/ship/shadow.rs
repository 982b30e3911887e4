//! What planning needs of a model or data file on a cluster, as files here: configs whole, weights as their headers in
//! sparse files of the right size. A terabyte becomes a few megabytes, and everything that reads headers just works.

use std::fs::{self, File, FileTimes};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use qlaunch_shared::digest::sha256;
use qlaunch_shared::sweep::{Data, Sweep};
use qlaunch_shared::{Error, Result};

use super::places::cluster_path;
use super::stage::{Known, Staged, StagedBy};
use crate::transport::{Transport, Wanted};

/// Largest file that is brought here whole; data files beyond it are known by size and time.
const WHOLE: u64 = 64 << 20;
/// Bytes of a weight file that are asked for at first; most headers fit.
const FIRST: u64 = 1 << 20;

/// Prints `SIZE SECONDS NAME` of the file `$1`, or of each file in the folder `$1`.
const LIST: &str = r#"
[ -e "$1" ] || exit 4
if [ -d "$1" ]; then cd -- "$1" || exit 1; set -- *; else cd -- "$(dirname -- "$1")" || exit 1; set -- "$(basename -- "$1")"; fi
for file in "$@"; do [ -f "$file" ] && stat -L -c '%s %Y %n' -- "$file"; done; exit 0
"#;

/// A file on the cluster.
struct Remote {
    path: PathBuf,
    size: u64,
    changed: u64,
}

/// Replaces every `cluster:` path of a sweep by its shadow below `folder`; returns what shadows stand for.
///
/// # Errors
/// Nothing at a path, or files that cannot be read there.
pub async fn shadow_sweep(host: &impl Transport, sweep: &mut Sweep, folder: &Path) -> Result<Known> {
    let mut known = Known::new();
    for path in paths_of(sweep) {
        let Some(there) = cluster_path(path) else { continue };
        let hash = &sha256(there.display().to_string())[..12];
        let name = there.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let own = Place { folder: folder.join(format!("{name}-{hash}")), changed: None };
        *path = shadow(host, &there, &own).await?;
        let staged = Staged { from: path.clone(), to: there, missing: 0, way: StagedBy::Cluster };
        known.insert(path.clone(), staged);
    }
    Ok(known)
}

/// Every path that a sweep names: the model's, then those of data.
pub(super) fn paths_of(sweep: &mut Sweep) -> impl Iterator<Item = &mut PathBuf> {
    let own = sweep.candidates.iter_mut().filter_map(|candidate| candidate.calibration.as_mut());
    let data = [sweep.calibration.as_mut(), sweep.evaluate.as_mut()].into_iter().flatten().chain(own);
    std::iter::once(&mut sweep.model).chain(data.map(|data: &mut Data| &mut data.data))
}

/// Where a shadow is put.
pub(super) struct Place {
    /// The folder for a folder's files, or for a single file.
    pub folder: PathBuf,
    /// Time of change that all files get, where their content is known by their path; that of the files if none.
    pub changed: Option<u64>,
}

/// Makes the shadow of a file or folder; its path.
///
/// # Errors
/// Nothing there, or files that cannot be read there.
pub(super) async fn shadow(host: &impl Transport, there: &Path, place: &Place) -> Result<PathBuf> {
    let folder = &place.folder;
    let output = host.shell(LIST, &[&there.display().to_string()]).await?;
    if output.code != Some(0) || output.stdout.is_empty() {
        return Err(Error::input("there is nothing at this path of the cluster")
            .at(there)
            .hint("check the path there"));
    }
    let is_file = output.stdout.lines().count() == 1
        && output
            .stdout
            .trim_end()
            .ends_with(&there.file_name().unwrap_or_default().to_string_lossy().into_owned());
    let above = if is_file { there.parent().unwrap_or(there) } else { there };
    let files: Vec<Remote> = output
        .stdout
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ' ');
            let (size, changed) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            let changed = place.changed.unwrap_or(changed);
            Some(Remote { path: above.join(fields.next()?), size, changed })
        })
        .collect();
    fs::create_dir_all(folder).map_err(|error| Error::io("make the folder", folder, &error))?;
    let stale: Vec<&Remote> = files.iter().filter(|file| !is_fresh(folder, file)).collect();
    // Some at a time: an answer is held in memory.
    for files in stale.chunks(16) {
        let wanted: Vec<Wanted> = files
            .iter()
            .map(|file| Wanted {
                path: file.path.clone(),
                from: 0,
                limit: if is_weights(file) { FIRST } else { WHOLE },
            })
            .collect();
        for (file, chunk) in files.iter().zip(host.read_many(&wanted).await?) {
            let Some(chunk) = chunk else {
                return Err(Error::input("the file cannot be read on the cluster")
                    .at(&file.path)
                    .hint("check its permissions"));
            };
            let mut bytes = chunk.bytes;
            if is_weights(file) {
                let header = bytes
                    .first_chunk::<8>()
                    .map_or(0, |length| u64::from_le_bytes(*length))
                    .saturating_add(8);
                if header > bytes.len() as u64 && header <= WHOLE.min(file.size) {
                    let rest = host.read(&file.path, bytes.len() as u64, header - bytes.len() as u64).await?;
                    bytes.extend(rest.unwrap_or_default());
                }
                bytes.truncate(usize::try_from(header).unwrap_or(usize::MAX));
            }
            write(folder, file, &bytes)?;
        }
    }
    Ok(if is_file { folder.join(there.file_name().unwrap_or_default()) } else { folder.clone() })
}

fn is_weights(file: &Remote) -> bool {
    file.path.extension().is_some_and(|end| end == "safetensors")
}

fn is_fresh(folder: &Path, file: &Remote) -> bool {
    let Ok(metadata) = folder.join(file.path.file_name().unwrap_or_default()).metadata() else {
        return false;
    };
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    metadata.len() == file.size && changed.is_some_and(|since| since.as_secs() == file.changed)
}

/// Writes what is known of a file; the rest of its size is a hole.
fn write(folder: &Path, file: &Remote, bytes: &[u8]) -> Result<()> {
    let path = folder.join(file.path.file_name().unwrap_or_default());
    let fault = |error: std::io::Error| Error::io("write", &path, &error);
    let mut shadow = File::create(&path).map_err(fault)?;
    shadow.write_all(bytes).map_err(fault)?;
    // A hole of terabytes would take hours to read for its digest; size and time stand for such data.
    let data = !is_weights(file) && file.size > WHOLE;
    if data {
        shadow.write_all(format!("{} {}", file.size, file.changed).as_bytes()).map_err(fault)?;
    } else {
        shadow.set_len(file.size).map_err(fault)?;
    }
    let changed = UNIX_EPOCH + Duration::from_secs(file.changed);
    shadow.set_times(FileTimes::new().set_modified(changed)).map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Local;

    #[test]
    fn a_shadow_has_headers_sizes_and_times_and_no_weights() {
        let work = tempfile::tempdir().unwrap();
        let model = work.path().join("model");
        fs::create_dir_all(model.join("original")).unwrap();
        fs::write(model.join("config.json"), "{}").unwrap();
        let mut weights = 5_u64.to_le_bytes().to_vec();
        weights.extend(b"{...}");
        weights.extend(vec![1; 5000]);
        fs::write(model.join("model.safetensors"), &weights).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let place = Place { folder: work.path().join("shadows"), changed: None };
        let shadow = |path: &Path| runtime.block_on(shadow(&Local, path, &place));
        let folder = shadow(&model).unwrap();
        let seen = fs::read(folder.join("model.safetensors")).unwrap();
        assert_eq!((&seen[..13], seen.len()), (&weights[..13], weights.len()));
        assert!(seen[13..].iter().all(|byte| *byte == 0));
        assert_eq!(fs::read(folder.join("config.json")).unwrap(), b"{}");
        let time = |path: &Path| {
            path.metadata().unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs()
        };
        assert_eq!(time(&folder.join("config.json")), time(&model.join("config.json")));
        let file = shadow(&model.join("config.json")).unwrap();
        assert_eq!(fs::read(file).unwrap(), b"{}");
        assert!(shadow(&model.join("none")).unwrap_err().hint.is_some());
    }
}
