//! What people ask of a run from another terminal while a launcher drives it: names of jobs that nobody wants any more.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use qlaunch_shared::{Error, Result};

/// The requests of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    path: PathBuf,
}

impl Requests {
    /// The requests that lie in a run's folder.
    pub fn of(run: &Path) -> Self {
        Self { path: run.join("cancel") }
    }

    /// Asks whoever drives the run to cancel jobs.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn cancel(&self, jobs: &[String]) -> Result<()> {
        let fault = |error: std::io::Error| Error::io("ask for the cancellation", &self.path, &error);
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path).map_err(fault)?;
        file.write_all((jobs.join("\n") + "\n").as_bytes()).map_err(fault)
    }

    /// Whether anybody has asked.
    pub fn any(&self) -> bool {
        self.path.exists()
    }

    /// Takes the names that were asked for; each is taken once.
    pub fn take(&self) -> Vec<String> {
        let taken = self.path.with_extension("taken");
        if fs::rename(&self.path, &taken).is_err() {
            return Vec::new();
        }
        let text = fs::read_to_string(&taken).unwrap_or_default();
        drop(fs::remove_file(&taken));
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let requests = Requests::of(folder.path());
        assert!(!requests.any() && requests.take().is_empty());
        requests.cancel(&["a".to_owned(), "b".to_owned()]).unwrap();
        requests.cancel(&["c".to_owned()]).unwrap();
        assert!(requests.any());
        assert_eq!(requests.take(), ["a", "b", "c"]);
        assert!(!requests.any() && requests.take().is_empty());
    }
}
