//! A run's model and data brought to the host where its jobs run; what is there already is used as it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use qlaunch_shared::digest::{hex, sha256_of_file};
use qlaunch_shared::{Error, Result};
use sha2::{Digest, Sha256};

use super::hub_id::Pinned;
use super::upload::{Upload, upload};
use crate::plan::PlannedJob;
use crate::transport::Transport;

/// Prints `SIZE SECONDS` of each file, or `-`.
const FACTS: &str = r#"for file in "$@"; do stat -L -c '%s %Y' -- "$file" 2>/dev/null || echo -; done"#;

/// Prints the free bytes of the file system of `$1`.
const FREE: &str = r#"df -P -k -- "$1" | awk 'NR == 2 { print $4 * 1024 }'"#;

/// Where files of this machine lie on the host, by their paths here.
pub type Places = BTreeMap<PathBuf, PathBuf>;

/// Inputs of which it is known already where they will lie.
pub type Known = BTreeMap<PathBuf, Staged>;

/// How something gets to where it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StagedBy {
    /// Sent by content, unless it is there.
    Upload,
    /// It lies on the cluster, and what is here is its shadow.
    Cluster,
    /// The Hub's cache where jobs run has it, or the worker brings it there; what is here is its shadow.
    Hub(Pinned),
    /// The worker brings it to this machine, since the Hub is not reached from there, and it is sent; with the reason.
    HubHere(Pinned, String),
}

/// Where something is brought from, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// The file or folder here.
    pub from: PathBuf,
    /// Where it lies there.
    pub to: PathBuf,
    /// Bytes that are not there yet.
    pub missing: u64,
    /// How it gets there.
    pub way: StagedBy,
}

/// What has to be sent before jobs can run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Staging {
    /// Models and data files.
    pub staged: Vec<Staged>,
    uploads: Vec<Upload>,
}

impl Staging {
    /// What is known of jobs on this machine: nothing is sent.
    pub fn here(known: &Known) -> Self {
        Self { staged: known.values().cloned().collect(), uploads: Vec::new() }
    }

    /// Bytes that have to be sent.
    pub fn missing(&self) -> u64 {
        let sent = self.staged.iter().filter(|staged| !matches!(staged.way, StagedBy::Hub(_)));
        sent.map(|staged| staged.missing).sum()
    }

    /// Where everything lies.
    pub fn places(&self) -> Places {
        self.staged.iter().map(|staged| (staged.from.clone(), staged.to.clone())).collect()
    }

    /// Sends what is missing.
    ///
    /// # Errors
    /// Too little space, a file that cannot be read, a link that stays lost.
    pub async fn send(
        &self,
        host: &impl Transport,
        workspace: &Path,
        progress: &mut dyn FnMut(&Path, u64),
    ) -> Result<()> {
        let missing = self.missing();
        if missing == 0 {
            return Ok(());
        }
        let output = host.shell(FREE, &[&workspace.display().to_string()]).await?;
        if let Ok(free) = output.stdout.trim().parse::<f64>()
            && free < missing as f64
        {
            let message = format!("{missing} bytes have to be sent, and the workspace has {free:.0} free");
            return Err(Error::input(message)
                .at(workspace)
                .hint("free some space there, or set another `workspace`"));
        }
        for file in &self.uploads {
            upload(host, file, &mut |there| progress(&file.from, there)).await?;
        }
        Ok(())
    }
}

/// Finds out what has to be sent.
///
/// # Errors
/// Files that cannot be read.
pub async fn plan_staging(
    host: &impl Transport,
    workspace: &Path,
    jobs: &[PlannedJob],
    known: &Known,
) -> Result<Staging> {
    let mut staging = Staging::default();
    for path in inputs(jobs) {
        if let Some(staged) = known.get(&path) {
            staging.staged.push(staged.clone());
            continue;
        }
        let files = files_of(&path)?;
        if is_same(host, &files).await? {
            staging.staged.push(Staged { from: path.clone(), to: path, missing: 0, way: StagedBy::Upload });
            continue;
        }
        let mut uploads = Vec::new();
        let mut key = Sha256::new();
        for file in &files {
            let digest = sha256_of_file(file)?.0;
            let name = file.strip_prefix(&path).unwrap_or(Path::new("")).to_owned();
            key.update(format!("{}\n{digest}\n", name.display()));
            uploads.push((file.clone(), name, digest));
        }
        let key = &hex(key.finalize())[..16];
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let to = match path.is_dir() {
            true => workspace.join("models").join(format!("{name}-{key}")),
            false => workspace.join("data").join(key).join(&name),
        };
        let mut missing = 0;
        for (from, name, sha256) in uploads {
            let target = if name.as_os_str().is_empty() { to.clone() } else { to.join(name) };
            if !host.exists(&target).await? {
                missing += size(&from)?;
                staging.uploads.push(Upload { from, to: target, sha256, mode: "644" });
            }
        }
        staging.staged.push(Staged { from: path, to, missing, way: StagedBy::Upload });
    }
    Ok(staging)
}

/// Lets jobs speak of files where they lie on the host.
pub fn relocate(jobs: &mut [PlannedJob], places: &Places) {
    let there = |path: &mut PathBuf| {
        if let Some(place) = places.get(path) {
            path.clone_from(place);
        }
    };
    for job in jobs {
        there(&mut job.spec.model);
        if let Some(calibration) =
            job.spec.quantize.as_mut().and_then(|quantize| quantize.calibration.as_mut())
        {
            there(&mut calibration.data);
        }
        if let Some(evaluate) = job.spec.evaluate.as_mut() {
            there(&mut evaluate.tokens.data);
        }
    }
}

/// Models and data files of all jobs.
fn inputs(jobs: &[PlannedJob]) -> Vec<PathBuf> {
    let mut inputs: Vec<PathBuf> = Vec::new();
    for job in jobs {
        inputs.push(job.spec.model.clone());
        let calibration = job.spec.quantize.as_ref().and_then(|quantize| quantize.calibration.as_ref());
        inputs.extend(calibration.map(|tokens| tokens.data.clone()));
        inputs.extend(job.spec.evaluate.as_ref().map(|evaluate| evaluate.tokens.data.clone()));
    }
    inputs.sort();
    inputs.dedup();
    inputs
}

/// A file itself, or the files of a model's folder.
fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let fault = |error: std::io::Error| Error::io("read the model's folder", path, &error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fault)? {
        let file = entry.map_err(fault)?.path();
        // Folders of a model, such as the `original` weights of some, are nothing that jobs read.
        if file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn size(path: &Path) -> Result<u64> {
    Ok(path.metadata().map_err(|error| Error::io("look at", path, &error))?.len())
}

/// Whether the host sees the very same files: a file system that both machines mount. Size and time stand for the content,
/// which would take hours to read.
async fn is_same(host: &impl Transport, files: &[PathBuf]) -> Result<bool> {
    let mut facts = String::new();
    for file in files {
        let metadata = file.metadata().map_err(|error| Error::io("look at", file, &error))?;
        let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        facts.push_str(&format!("{} {}\n", metadata.len(), changed.unwrap_or_default().as_secs()));
    }
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let output = host.shell(FACTS, &names).await?;
    // What can be seen may still not be readable there.
    let readable = host.shell("for file in \"$@\"; do [ -r \"$file\" ] || exit 1; done", &names).await?;
    Ok(output.stdout == facts && readable.code == Some(0))
}
