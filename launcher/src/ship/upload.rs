//! Files brought to a host by content: what is there is not sent again, what was torn goes on where it stopped.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use qlaunch_shared::{Error, ErrorKind, Result};

use crate::transport::Transport;

/// Bytes that are sent at a time: what a lost link costs at most.
const PIECE: usize = 16 << 20;
/// Tries in a row that a link may fail while a file is sent.
const TRIES: u32 = 8;
/// Longest that a host may take to compute the digest of a file.
const DIGEST: Duration = Duration::from_secs(3600);

/// Moves `$1` to `$2` if its digest is `$3`; `$4` is its mode. A file with another digest is removed.
const SETTLE: &str = r#"
[ -e "$1" ] || [ ! -e "$2" ] || exit 0
got=$(sha256sum < "$1") || exit 1
[ "${got%% *}" = "$3" ] || { rm -f -- "$1"; echo "the digest is wrong" >&2; exit 1; }
chmod "$4" "$1" && mkdir -p -- "$(dirname -- "$2")" && mv -f -- "$1" "$2"
"#;

/// A file to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Where it lies here.
    pub from: PathBuf,
    /// Where it is to lie there.
    pub to: PathBuf,
    /// Its SHA-256 in hex.
    pub sha256: String,
    /// Its permissions there, in octal.
    pub mode: &'static str,
}

/// Sends a file unless it is there. `progress` is told how many bytes are there now.
///
/// # Errors
/// A file that cannot be read, a disk that is full, a link that stays lost.
pub async fn upload(host: &impl Transport, file: &Upload, progress: &mut dyn FnMut(u64)) -> Result<()> {
    if host.exists(&file.to).await? {
        return Ok(());
    }
    let fault = |error: std::io::Error| Error::io("read", &file.from, &error);
    let mut source = File::open(&file.from).map_err(fault)?;
    let size = source.metadata().map_err(fault)?.len();
    let mut part = file.to.as_os_str().to_owned();
    part.push(format!(".{}.part", file.sha256.get(..16).unwrap_or_default()));
    let part = PathBuf::from(part);
    let mut there = 0;
    let mut failures = 0;
    let mut piece = vec![0; PIECE];
    while there < size || there == 0 {
        source.seek(SeekFrom::Start(there)).map_err(fault)?;
        let mut filled = 0;
        while filled < piece.len() {
            match source.read(&mut piece[filled..]).map_err(fault)? {
                0 => break,
                count => filled += count,
            }
        }
        match host.append(&part, there, &piece[..filled]).await {
            Ok(now) if now <= size => {
                there = now;
                failures = 0;
                progress(there);
            }
            // Something else lies there.
            Ok(_) => {
                host.remove(&part).await?;
                there = 0;
            }
            Err(error) if error.kind == ErrorKind::Unreachable && failures < TRIES => {
                failures += 1;
                tokio::time::sleep(Duration::from_millis(250 << failures)).await;
            }
            Err(error) => return Err(error),
        }
        if size == 0 {
            break;
        }
    }
    let (from, to) = (part.display().to_string(), file.to.display().to_string());
    let settled = host.shell_within(DIGEST, SETTLE, &[&from, &to, &file.sha256, file.mode]).await?;
    match settled.code {
        Some(0) => Ok(()),
        _ => Err(Error::input(format!("the file did not arrive whole: {}", settled.stderr.trim()))
            .at(&file.from)
            .hint("give the same command again")),
    }
}

#[cfg(test)]
mod tests {
    use qlaunch_shared::digest::sha256_of_file;

    use super::*;
    use crate::transport::Local;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_torn_upload_goes_on_where_it_stopped_and_a_wrong_part_is_thrown_away() {
        let work = tempfile::tempdir().unwrap();
        let from = work.path().join("from");
        std::fs::write(&from, vec![7_u8; PIECE + 100]).unwrap();
        let file = |name: &str| Upload {
            from: from.clone(),
            to: work.path().join("there").join(name),
            sha256: sha256_of_file(&from).unwrap().0,
            mode: "755",
        };
        for (name, part) in
            [("fresh", None), ("torn", Some(vec![7_u8; 50])), ("wrong", Some(vec![9; PIECE * 2]))]
        {
            let file = file(name);
            if let Some(part) = part {
                let path = format!("{}.{}.part", file.to.display(), &file.sha256[..16]);
                std::fs::create_dir_all(work.path().join("there")).unwrap();
                std::fs::write(path, part).unwrap();
            }
            let mut seen = Vec::new();
            block_on(upload(&Local, &file, &mut |there| seen.push(there))).unwrap();
            assert_eq!(sha256_of_file(&file.to).unwrap().0, file.sha256, "{name}");
            assert_eq!(seen.last(), Some(&(PIECE as u64 + 100)), "{name}");
        }
    }

    #[test]
    fn an_empty_file_arrives_and_a_damaged_one_does_not() {
        let work = tempfile::tempdir().unwrap();
        let from = work.path().join("from");
        std::fs::write(&from, "").unwrap();
        let mut file = Upload {
            from: from.clone(),
            to: work.path().join("to"),
            sha256: sha256_of_file(&from).unwrap().0,
            mode: "644",
        };
        block_on(upload(&Local, &file, &mut |_| {})).unwrap();
        assert_eq!(std::fs::read(&file.to).unwrap(), b"");
        file.to = work.path().join("other");
        file.sha256 = "0".repeat(64);
        assert!(block_on(upload(&Local, &file, &mut |_| {})).unwrap_err().message.contains("digest"));
        assert!(!file.to.exists());
    }
}
