//! SHA-256 in the spelling that every file of ours uses: 64 lower-case hexadecimal digits.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    use std::fmt::Write;
    bytes.as_ref().iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The digest of bytes at hand.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex(Sha256::digest(bytes))
}

/// The digest of a file's content, and its length in bytes.
///
/// # Errors
/// The file cannot be read.
pub fn sha256_of_file(path: &Path) -> Result<(String, u64)> {
    sha256_of_part(path, 0, u64::MAX)
}

/// The digest of at most `length` bytes of a file from `offset` on, and how many there were.
///
/// # Errors
/// The file cannot be read.
pub fn sha256_of_part(path: &Path, offset: u64, length: u64) -> Result<(String, u64)> {
    let failed = |error: std::io::Error| Error::io("read", path, &error);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut part = file.take(length);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        let read = part.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            return Ok((hex(hash.finalize()), length));
        }
        hash.update(&buffer[..read]);
        length += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-4, the example of one block.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn digests_are_those_of_the_standard() {
        assert_eq!(sha256("abc"), ABC);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(sha256_of_file(&path).unwrap(), (ABC.to_owned(), 3));
        std::fs::write(&path, "xxabcxx").unwrap();
        assert_eq!(sha256_of_part(&path, 2, 3).unwrap(), (ABC.to_owned(), 3));
        assert_eq!(sha256_of_part(&path, 6, 3).unwrap(), (sha256("x"), 1));
        assert!(sha256_of_file(folder.path()).is_err());
    }
}
