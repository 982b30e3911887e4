//! What every host can do for us, whether it is this machine or the far end of a link.

use std::path::{Path, PathBuf};
use std::time::Duration;

use qlaunch_shared::Result;

/// Longest that a command of ours may take; jobs are started in the background and do not count. A scheduler that is
/// down lets its commands wait for twenty seconds, one that limits calls for longer.
pub const DEADLINE: Duration = Duration::from_secs(120);

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

/// A piece of a file that may grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// What lies behind the offset, at most as much as was asked for.
    pub bytes: Vec<u8>,
    /// Bytes of the whole file at that moment.
    pub size: u64,
    /// Number of the file on its file system: another one means another file under the same name.
    pub inode: u64,
}

/// A piece of a file that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The file.
    pub path: PathBuf,
    /// First byte.
    pub from: u64,
    /// Most bytes.
    pub limit: u64,
}

/// Files and commands of one host. Paths are the host's.
///
/// A host that cannot be reached is an error of the kind `Unreachable`; what was asked may or may not have happened then.
pub trait Transport {
    /// Reads pieces of files in one go; none for a file that is not there.
    fn read_many(&self, wanted: &[Wanted]) -> impl Future<Output = Result<Vec<Option<Chunk>>>>;

    /// Writes a file whole or not at all, with the folders above it.
    fn write(&self, path: &Path, bytes: &[u8]) -> impl Future<Output = Result<()>>;

    /// Writes a file that nobody but its owner can read, whole or not at all.
    fn write_private(&self, path: &Path, bytes: &[u8]) -> impl Future<Output = Result<()>>;

    /// Adds bytes to a file that has `size` bytes, with the folders above it; returns its size afterwards. A file of
    /// another size is left as it is.
    fn append(&self, path: &Path, size: u64, bytes: &[u8]) -> impl Future<Output = Result<u64>>;

    /// Makes a folder and those above it.
    fn make_folder(&self, path: &Path) -> impl Future<Output = Result<()>>;

    /// Whether there is a file or folder.
    fn exists(&self, path: &Path) -> impl Future<Output = Result<bool>>;

    /// Renames a file or folder on one file system; a file takes the place of another file.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = Result<()>>;

    /// Removes a file, or a folder with everything in it; nothing to remove is no error.
    fn remove(&self, path: &Path) -> impl Future<Output = Result<()>>;

    /// Runs a POSIX shell script with arguments (`$1`, …) and waits for its end, within a deadline.
    fn shell_within(
        &self,
        deadline: Duration,
        script: &str,
        arguments: &[&str],
    ) -> impl Future<Output = Result<CommandOutput>>;

    /// Runs a script that takes seconds at most.
    fn shell(&self, script: &str, arguments: &[&str]) -> impl Future<Output = Result<CommandOutput>> {
        self.shell_within(DEADLINE, script, arguments)
    }

    /// Reads at most `limit` bytes of a file from an offset on; none if there is no such file.
    fn read(&self, path: &Path, from: u64, limit: u64) -> impl Future<Output = Result<Option<Vec<u8>>>> {
        async move {
            let wanted = [Wanted { path: path.to_owned(), from, limit }];
            Ok(self.read_many(&wanted).await?.pop().flatten().map(|chunk| chunk.bytes))
        }
    }
}
