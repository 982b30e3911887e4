//! Finds the worker binary of this machine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use qlaunch_shared::{Error, Result};

use crate::config::{Settings, Surroundings};

/// File name of the worker.
const WORKER: &str = "qlaunch-worker";

/// The worker binary: the configured one, else the one beside this program.
///
/// # Errors
/// No file there that can be executed.
pub fn worker_binary(settings: &Settings, around: &Surroundings) -> Result<PathBuf> {
    let (path, origin) = match (&settings.worker, &around.executable) {
        (Some(worker), _) => (worker.clone(), settings.origin("worker").unwrap_or("the settings")),
        (None, Some(executable)) => (executable.with_file_name(WORKER), "beside qlaunch"),
        (None, None) => (PathBuf::from(WORKER), "the working folder"),
    };
    match is_executable(&path) {
        true => Ok(path),
        false => Err(Error::input(format!("there is no worker to run ({origin})"))
            .at(path)
            .hint("build it with `cargo build --release`, or name it in QLAUNCH_WORKER")),
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    #[test]
    fn the_worker_lies_beside_the_program_unless_a_variable_says_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(WORKER);
        let mut around = Surroundings {
            project: folder.path().to_owned(),
            executable: Some(folder.path().join("qlaunch")),
            ..Surroundings::default()
        };
        let find = |around: &Surroundings| {
            worker_binary(&Settings::load("local", around, &Overrides::default()).unwrap(), around)
        };
        assert!(find(&around).unwrap_err().to_string().contains("QLAUNCH_WORKER"));
        std::fs::write(&path, "").unwrap();
        assert!(find(&around).is_err(), "a file that cannot be executed is no worker");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find(&around).unwrap(), path);
        around.variables.insert("QLAUNCH_WORKER".to_owned(), "elsewhere".to_owned());
        let refusal = find(&around).unwrap_err();
        assert_eq!(refusal.message, "there is no worker to run (environment variable QLAUNCH_WORKER)");
    }
}
