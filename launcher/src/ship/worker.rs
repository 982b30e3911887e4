//! The worker brought to another host: under its own digest, once, and only a build that runs there.

use std::path::Path;

use qlaunch_shared::digest::sha256_of_file;
use qlaunch_shared::{Error, Result};

use super::elf::{Needs, needs};
use super::upload::{Upload, upload};
use crate::config::{Settings, WorkerBuild};
use crate::transport::Transport;

/// The newest glibc that a portable worker may need: that of every distribution of the last decade.
const GLIBC: (u32, u32) = (2, 17);

/// The command that makes the portable build.
const BUILD: &str = "cargo zigbuild --release -p qlaunch-worker --target x86_64-unknown-linux-gnu.2.17";

/// The worker as it is to be sent, with the path that it has or will have on the host.
///
/// # Errors
/// A worker that would not run there, with the command that builds the right one.
pub fn portable_worker(workspace: &Path, worker: &Path, settings: &Settings) -> Result<Upload> {
    let bytes = std::fs::read(worker).map_err(|error| Error::io("read the worker", worker, &error))?;
    let needs = needs(&bytes).map_err(|error| error.at(worker))?;
    refuse_host_build(&needs, settings.profile.worker_build).map_err(|error| error.at(worker))?;
    let (sha256, _) = sha256_of_file(worker)?;
    let folder = workspace.join("workers").join(sha256.get(..16).unwrap_or_default());
    Ok(Upload { from: worker.to_owned(), to: folder.join("qlaunch-worker"), sha256, mode: "755" })
}

/// Sends a worker unless it is there, and lets it say its version there: a processor or libc that does not fit is found
/// now, not by every job.
///
/// # Errors
/// A link that stays lost, a worker that does not run there.
pub async fn ship_worker(host: &impl Transport, file: &Upload, cluster: &str) -> Result<()> {
    if host.exists(&file.to).await? {
        return Ok(());
    }
    upload(host, file, &mut |_| {}).await?;
    let output = host.shell("uname -m; \"$1\" --version", &[&file.to.display().to_string()]).await?;
    if output.code == Some(0) {
        return Ok(());
    }
    host.remove(&file.to).await?;
    let there = output.stdout.lines().next().unwrap_or_default().to_owned();
    let machine =
        needs(&std::fs::read(&file.from).unwrap_or_default()).map_or("unknown", |needs| needs.machine);
    let why = match there == machine {
        true => output.stderr.lines().last().unwrap_or_default().trim().to_owned(),
        false => format!("it is made for {machine}, the host is {there}"),
    };
    Err(Error::input(format!("the worker does not run on `{cluster}`: {why}"))
        .at(&file.from)
        .hint(format!("build one that does, for instance `{BUILD}`, and name it in QLAUNCH_WORKER")))
}

fn refuse_host_build(needs: &Needs, build: WorkerBuild) -> Result<()> {
    let Some(glibc) = needs.glibc.filter(|glibc| *glibc > GLIBC && build == WorkerBuild::Portable) else {
        return Ok(());
    };
    let message = format!(
        "this worker needs glibc {}.{}, and nodes may have one as old as {}.{}",
        glibc.0, glibc.1, GLIBC.0, GLIBC.1
    );
    Err(Error::input(message).hint(format!(
        "build the portable one: `{BUILD}`, and name it in QLAUNCH_WORKER; where nodes are like this machine, set `worker_build = \"host\"` in the cluster's profile"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_for_newer_machines_is_refused_unless_a_person_vouches_for_the_nodes() {
        let needs = |glibc| Needs { machine: "x86_64", glibc };
        for portable in [None, Some((2, 17)), Some((2, 3))] {
            assert!(refuse_host_build(&needs(portable), WorkerBuild::Portable).is_ok());
        }
        let refusal = refuse_host_build(&needs(Some((2, 36))), WorkerBuild::Portable).unwrap_err();
        assert!(refusal.hint.unwrap().contains("cargo zigbuild"));
        assert!(refuse_host_build(&needs(Some((2, 36))), WorkerBuild::Host).is_ok());
    }
}
