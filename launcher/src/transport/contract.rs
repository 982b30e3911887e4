//! What every host can do for us, whether it is this machine or the far end of a link.

use std::path::Path;

use qlaunch_shared::Result;

/// What a command printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutput {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Files and commands of one host. Paths are the host's.
pub trait Transport {
    /// Reads at most `limit` bytes of a file from an offset on; none if there is no such file.
    fn read(&self, path: &Path, from: u64, limit: u64) -> impl Future<Output = Result<Option<Vec<u8>>>>;

    /// Writes a file whole or not at all, with the folders above it.
    fn write(&self, path: &Path, bytes: &[u8]) -> impl Future<Output = Result<()>>;

    /// Makes a folder and those above it.
    fn make_folder(&self, path: &Path) -> impl Future<Output = Result<()>>;

    /// Whether there is a file or folder.
    fn exists(&self, path: &Path) -> impl Future<Output = Result<bool>>;

    /// Renames a file or folder on one file system.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = Result<()>>;

    /// Removes a file, or a folder with everything in it; nothing to remove is no error.
    fn remove(&self, path: &Path) -> impl Future<Output = Result<()>>;

    /// Runs a POSIX shell script with arguments (`$1`, …) and waits for its end, within a deadline.
    fn shell(&self, script: &str, arguments: &[&str]) -> impl Future<Output = Result<CommandOutput>>;
}
