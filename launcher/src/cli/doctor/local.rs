//! What the launcher needs on its own machine: folders that can be written, space, and the programs of clusters.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Access, access, statvfs};

use super::check::Check;
use crate::ui::bytes;

/// How long a program may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(5);
/// Less free space than this is worth a word: a checkpoint of a small model.
const LITTLE: u64 = 10 << 30;

/// Programs that kinds of clusters need: name, how it tells its version, and what for.
const PROGRAMS: [(&str, &[&str], &str); 4] = [
    ("ssh", &["-V"], "only clusters of other hosts need it: install `openssh-client`"),
    (
        "docker",
        &["version", "--format", "{{.Server.Version}}"],
        "only containers need it: install `docker.io` and start it with `sudo systemctl start docker`; or podman",
    ),
    ("podman", &["--version"], "only containers need it, where Docker is not there: install `podman`"),
    (
        "sbatch",
        &["--version"],
        "only SLURM clusters that this machine belongs to need it; others are reached by ssh",
    ),
];

/// Looks for the programs that clusters need.
pub fn programs() -> Vec<Check> {
    PROGRAMS.iter().map(|&(name, arguments, hint)| program(name, arguments, hint)).collect()
}

fn program(name: &str, arguments: &[&str], hint: &str) -> Check {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(file) = find(name, &path) else { return Check::note(name, "not installed", hint) };
    match first_line(&file, arguments) {
        Ok(line) => Check::ok(name, format!("{line} · {}", file.display())),
        Err(why) => Check::note(name, format!("{} does not answer: {why}", file.display()), hint),
    }
}

fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|folder| folder.join(name))
        .find(|file| access(file, Access::EXEC_OK).is_ok())
}

/// The first line that a program says on either stream; an error if it fails or takes too long.
fn first_line(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let begun = Instant::now();
    // Versions are short: pipes hold all of them.
    while child.try_wait().map_err(|error| error.to_string())?.is_none() {
        if begun.elapsed() > PATIENCE {
            // It may just have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("nothing within {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let line = said.iter().flat_map(|text| text.lines()).find(|line| !line.trim().is_empty());
    let line = line.unwrap_or_default().trim().to_owned();
    if output.status.success() { Ok(line) } else { Err(format!("{line} ({})", output.status)) }
}

/// Looks at a folder that will be written, or at the nearest one above it that is there.
pub fn folder(name: &str, path: &Path, hint: &str) -> Check {
    let Some(there) = path.ancestors().find(|above| above.exists()) else {
        return Check::fail(name, format!("{} is nowhere", path.display()), hint);
    };
    if access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Check::fail(name, format!("{} cannot be written", there.display()), hint);
    }
    let Ok(space) = statvfs(there) else {
        return Check::note(name, format!("{}: its space cannot be told", path.display()), hint);
    };
    let free = space.f_bavail * space.f_frsize;
    let found = format!("{} · {} free", path.display(), bytes(free));
    if free < LITTLE {
        return Check::note(name, found, format!("a checkpoint is about as large as its model: {hint}"));
    }
    Check::ok(name, found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::check::Verdict;
    use super::*;

    #[test]
    fn programs_that_are_missing_fail_or_hang_are_told_apart() {
        let work = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            let path = work.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            path
        };
        let talks = script("talks", "echo; echo one 1.2 >&2");
        assert_eq!(find("talks", work.path().as_os_str()), Some(talks.clone()));
        assert_eq!(find("silent", work.path().as_os_str()), None);
        assert_eq!(first_line(&talks, &[]).unwrap(), "one 1.2");
        let error = first_line(&script("fails", "echo no daemon; exit 3"), &[]).unwrap_err();
        assert!(error.starts_with("no daemon (exit status: 3"), "{error}");
        let error = first_line(&script("hangs", "exec sleep 60"), &[]).unwrap_err();
        assert!(error.contains("within 5 s"), "{error}");
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_judged_by_the_one_above() {
        let work = tempfile::tempdir().unwrap();
        let check = folder("runs", &work.path().join("a/b/c"), "choose another");
        assert!(check.verdict < Verdict::Fail && check.found.contains("free"), "{check:?}");
        let check = folder("runs", Path::new("/proc/runs"), "choose another");
        // Root may write everywhere that the file system allows, and nobody may here.
        if rustix::process::geteuid().is_root() {
            return;
        }
        assert_eq!(check.verdict, Verdict::Fail);
    }
}
