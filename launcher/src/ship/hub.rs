//! Which of a sweep's inputs are on the Hub, and the way that each takes: found in a cache, downloaded where the jobs run, or
//! downloaded here and sent.

use std::path::{Path, PathBuf};

use qlaunch_shared::digest::sha256_of_file;
use qlaunch_shared::protocol::{DownloadEvent, Snapshot};
use qlaunch_shared::sweep::Sweep;
use qlaunch_shared::{Error, ErrorKind, Result};

use super::courier::Courier;
use super::hub_id::{HubId, HubWanted, Pinned};
use super::shadow::{Place, paths_of, shadow};
use super::stage::{Known, Staged, StagedBy};
use super::upload::{Upload, upload};
use crate::transport::Transport;

/// Time of change of every shadow: a commit's files never change, whenever they were downloaded.
const UNCHANGED: u64 = 1_000_000_000;

/// Prints the size of each file, or 0.
const SIZES: &str = r#"for file in "$@"; do stat -L -c %s -- "$file" 2>/dev/null || echo 0; done"#;

/// Who brings things from the Hub: to where jobs run, and to this machine.
#[derive(Debug, Clone)]
pub struct Couriers {
    /// To where jobs run.
    pub there: Courier,
    /// To this machine; none where jobs run here.
    pub here: Option<Courier>,
    /// Folder there of what is sent; none where jobs run here.
    pub workspace: Option<PathBuf>,
}

/// The names on the Hub among a sweep's paths, by the paths; those begin in `folder`.
///
/// # Errors
/// A path that says it is a name on the Hub, and is none.
pub fn hub_ids(sweep: &Sweep, folder: &Path) -> Result<Vec<(PathBuf, HubId)>> {
    let mut sweep = sweep.clone();
    let mut found = Vec::new();
    for (index, path) in paths_of(&mut sweep).enumerate() {
        let id = if index == 0 { HubId::of_model(path, folder)? } else { HubId::of_data(path, folder)? };
        found.extend(id.map(|id| (path.clone(), id)));
    }
    found.dedup();
    Ok(found)
}

/// Replaces paths of a sweep that are names on the Hub by their shadows below `shadows`, or by data files on this machine;
/// returns what shadows stand for. No weights are downloaded for that; data files are.
///
/// # Errors
/// A Hub that refuses, or that neither the host nor this machine reaches.
pub async fn plan_hub(
    couriers: &Couriers,
    sweep: &mut Sweep,
    ids: &[(PathBuf, HubId)],
    shadows: &Path,
) -> Result<Known> {
    let mut known = Known::new();
    for (written, id) in ids {
        let staged = couriers.stage(id, shadows).await.map_err(|error| explain(error, written))?;
        for path in paths_of(sweep).filter(|path| *path == written) {
            path.clone_from(&staged.from);
        }
        known.insert(staged.from.clone(), staged);
    }
    Ok(known)
}

/// An error about a name on the Hub that may be a mistyped path.
pub fn explain(error: Error, written: &Path) -> Error {
    match written.display().to_string() {
        // Whoever writes `hf:` means no path.
        text if text.contains("hf:") => error,
        text => error.context(format!("there is no `{text}` here")),
    }
}

impl Couriers {
    async fn stage(&self, id: &HubId, shadows: &Path) -> Result<Staged> {
        let headers = id.wanted == HubWanted::Model;
        let why = match self.there.bring(id, headers, &mut |_| {}).await {
            Ok(snapshot) => return self.stage_there(id, &snapshot, shadows).await,
            Err(error) => error,
        };
        match (&self.here, &self.workspace) {
            (Some(here), Some(workspace)) if why.kind == ErrorKind::Unreachable => {
                let snapshot = here.bring(id, headers, &mut |_| {}).await.map_err(|_| why.clone())?;
                self.stage_here((id, why), &snapshot, (here, workspace), shadows).await
            }
            _ => Err(why),
        }
    }

    /// What jobs find in a cache where they run, or will find there.
    async fn stage_there(&self, id: &HubId, snapshot: &Snapshot, shadows: &Path) -> Result<Staged> {
        let (from, to) = shadowed(&self.there, id, snapshot, shadows).await?;
        Ok(Staged { from, to, missing: snapshot.missing(), way: StagedBy::Hub(pinned(id, snapshot)) })
    }

    /// What is downloaded here and sent.
    async fn stage_here(
        &self,
        (id, why): (&HubId, Error),
        snapshot: &Snapshot,
        (here, workspace): (&Courier, &Path),
        shadows: &Path,
    ) -> Result<Staged> {
        let (from, _) = shadowed(here, id, snapshot, shadows).await?;
        let mut to = workspace.join("hub").join(folder_name(id, snapshot));
        let names: Vec<PathBuf> = snapshot.files.iter().map(|file| to.join(&file.name)).collect();
        let names: Vec<String> = names.iter().map(|name| name.display().to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let output = self.there.host.shell(SIZES, &names).await?;
        let there = output.stdout.lines().map(|size| size.parse().unwrap_or(0));
        let missing = snapshot.files.iter().zip(there).filter(|(file, size)| file.size != *size);
        let missing = missing.map(|(file, _)| file.size).sum();
        if let (HubWanted::Data(_), [file]) = (&id.wanted, &snapshot.files[..]) {
            to = to.join(&file.name);
        }
        Ok(Staged { from, to, missing, way: StagedBy::HubHere(pinned(id, snapshot), why.message) })
    }

    /// Brings what is missing of something to where the jobs run. `told` hears of it.
    ///
    /// # Errors
    /// A Hub that refuses or is not reached, too little space, a link that stays lost.
    pub async fn bring(&self, staged: &Staged, told: &mut dyn FnMut(&DownloadEvent)) -> Result<()> {
        match (&staged.way, &self.here) {
            (StagedBy::Hub(pinned), _) => check(pinned, &self.there.bring(&pinned.id, false, told).await?),
            (StagedBy::HubHere(pinned, _), Some(here)) => {
                let snapshot = here.bring(&pinned.id, false, told).await?;
                check(pinned, &snapshot)?;
                let single = matches!(pinned.id.wanted, HubWanted::Data(_));
                for file in &snapshot.files {
                    let from = snapshot.folder.join(&file.name);
                    let to = if single { staged.to.clone() } else { staged.to.join(&file.name) };
                    let sha256 = sha256_of_file(&from)?.0;
                    upload(&self.there.host, &Upload { from, to, sha256, mode: "644" }, &mut |_| {}).await?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The shadow of a snapshot, and what it stands for.
async fn shadowed(
    courier: &Courier,
    id: &HubId,
    snapshot: &Snapshot,
    shadows: &Path,
) -> Result<(PathBuf, PathBuf)> {
    let place =
        Place { folder: shadows.join("hub").join(folder_name(id, snapshot)), changed: Some(UNCHANGED) };
    let mut seen = snapshot.headers.clone().unwrap_or_else(|| snapshot.folder.clone());
    let mut to = snapshot.folder.clone();
    if let (HubWanted::Data(_), [file]) = (&id.wanted, &snapshot.files[..]) {
        seen = seen.join(&file.name);
        to = to.join(&file.name);
    }
    Ok((shadow(&courier.host, &seen, &place).await?, to))
}

fn pinned(id: &HubId, snapshot: &Snapshot) -> Pinned {
    Pinned { id: id.clone(), commit: snapshot.commit.clone() }
}

/// A branch may move between plan and download: jobs are planned for one commit.
fn check(pinned: &Pinned, snapshot: &Snapshot) -> Result<()> {
    match snapshot.commit == pinned.commit {
        true => Ok(()),
        false => {
            Err(Error::input(format!("`{}` of the Hub was changed while the run was planned", pinned.id))
                .hint("give the same command again, or name a commit behind `@`"))
        }
    }
}

fn folder_name(id: &HubId, snapshot: &Snapshot) -> String {
    let kind = if id.wanted == HubWanted::Model { "" } else { "datasets--" };
    let commit = snapshot.commit.get(..12).unwrap_or(&snapshot.commit);
    format!("{kind}{}-{commit}", id.repository.replace('/', "--"))
}
