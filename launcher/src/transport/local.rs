//! This machine.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as Io, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use qlaunch_shared::{Error, ErrorKind, Result};
use tokio::process::Command;

use super::contract::{Chunk, CommandOutput, Transport, Wanted};

/// This machine. File operations are short and done in place; only commands are waited for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Local;

impl Transport for Local {
    async fn read_many(&self, wanted: &[Wanted]) -> Result<Vec<Option<Chunk>>> {
        wanted.iter().map(read).collect()
    }

    async fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        if let Some(folder) = path.parent() {
            self.make_folder(folder).await?;
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let written = File::create(&partial)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&partial, path));
        written.map_err(|error| {
            // The partial file is worthless now; that it cannot be removed either says nothing new.
            drop(fs::remove_file(&partial));
            Error::io("write", path, &error)
        })
    }

    async fn write_private(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        if let Some(folder) = path.parent() {
            self.make_folder(folder).await?;
        }
        let partial = path.with_extension("partial");
        let written = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&partial)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&partial, path));
        written.map_err(|error| Error::io("write", path, &error))
    }

    async fn append(&self, path: &Path, size: u64, bytes: &[u8]) -> Result<u64> {
        if let Some(folder) = path.parent() {
            self.make_folder(folder).await?;
        }
        let fault = |error: std::io::Error| Error::io("add to", path, &error);
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(fault)?;
        let there = file.metadata().map_err(fault)?.len();
        if there == size {
            file.write_all(bytes).map_err(fault)?;
            return Ok(size + bytes.len() as u64);
        }
        Ok(there)
    }

    async fn make_folder(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path).map_err(|error| Error::io("make the folder", path, &error))
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        path.try_exists().map_err(|error| Error::io("look at", path, &error))
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|error| Error::io(&format!("move to {}", to.display()), from, &error))
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        let removed = match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) if error.kind() == Io::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        removed.map_err(|error| Error::io("remove", path, &error))
    }

    async fn shell_within(
        &self,
        deadline: Duration,
        script: &str,
        arguments: &[&str],
    ) -> Result<CommandOutput> {
        let unreachable =
            |why: String| Error::new(ErrorKind::Unreachable, format!("cannot run a shell: {why}"));
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).arg("qlaunch").args(arguments);
        command.stdin(Stdio::null()).kill_on_drop(true);
        match tokio::time::timeout(deadline, command.output()).await {
            Ok(Ok(output)) => Ok(CommandOutput {
                code: output.status.code(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable(format!("no answer within {} seconds", deadline.as_secs()))),
        }
    }
}

fn read(wanted: &Wanted) -> Result<Option<Chunk>> {
    let fault = |error: std::io::Error| Error::io("read", &wanted.path, &error);
    let mut file = match File::open(&wanted.path) {
        Ok(file) => file,
        Err(error) if error.kind() == Io::NotFound => return Ok(None),
        Err(error) => return Err(fault(error)),
    };
    let metadata = file.metadata().map_err(fault)?;
    let mut bytes = Vec::new();
    if wanted.from > 0 {
        file.seek(SeekFrom::Start(wanted.from)).map_err(fault)?;
    }
    match file.take(wanted.limit).read_to_end(&mut bytes) {
        Ok(_) => Ok(Some(Chunk { bytes, size: metadata.len(), inode: metadata.ino() })),
        // A process that ends while its /proc entry is read: the entry is as good as gone.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(fault(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn files_are_read_by_offset_and_absent_ones_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/file");
        block_on(async {
            assert_eq!(Local.read(&path, 0, 10).await.unwrap(), None);
            Local.write(&path, b"0123456789").await.unwrap();
            assert_eq!(Local.read(&path, 4, 3).await.unwrap().unwrap(), b"456");
            assert_eq!(Local.read(&path, 20, 3).await.unwrap().unwrap(), b"");
            Local.remove(&folder.path().join("deep")).await.unwrap();
            Local.remove(&path).await.unwrap();
            assert!(!Local.exists(&path).await.unwrap());
        });
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir_all(path.join("inside")).unwrap();
        let refusal = block_on(Local.write(&path, b"x")).unwrap_err();
        assert!(refusal.message.starts_with("cannot write"), "{refusal}");
        assert!(!folder.path().join("taken.partial").exists());
    }

    #[test]
    fn a_script_gets_its_arguments_whole() {
        let output = block_on(Local.shell("printf '%s|' \"$@\"; exit 3", &["a b", "$c'd"])).unwrap();
        assert_eq!((output.code, output.stdout.as_str()), (Some(3), "a b|$c'd|"));
    }
}
