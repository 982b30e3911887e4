//! What a checkpoint was put together from: every piece with its key and the digests of its files.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Key, StoredFile};
use crate::assign::Piece;
use crate::digest::sha256_of_file;
use crate::{Error, Result};

/// Name of the file in a checkpoint's folder.
pub const ASSEMBLY: &str = "build.json";

/// The version that this program writes.
const VERSION: u32 = 1;

/// A checkpoint and its pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assembly {
    /// Version of this format.
    pub version: u32,
    /// Pieces in order.
    pub pieces: Vec<AssembledPiece>,
    /// Files beside the weights that other checkpoints of the model have too.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub companions: Vec<AssembledCompanion>,
}

/// A file beside the weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssembledCompanion {
    /// Its key in the store.
    pub key: Key,
    /// The file, by its name in the checkpoint.
    pub file: StoredFile,
}

/// A piece of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssembledPiece {
    /// Which.
    pub piece: Piece,
    /// Its key in the store.
    pub key: Key,
    /// Its files, by their names in the checkpoint.
    pub files: Vec<StoredFile>,
}

/// A file of a checkpoint that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The piece; `companion` for what stands beside the weights.
    pub piece: String,
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl Assembly {
    /// Of these.
    pub const fn new(pieces: Vec<AssembledPiece>, companions: Vec<AssembledCompanion>) -> Self {
        Self { version: VERSION, pieces, companions }
    }

    /// Keys of everything that it was put together from.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        let companions = self.companions.iter().map(|companion| &companion.key);
        self.pieces.iter().map(|piece| &piece.key).chain(companions)
    }

    /// All files with what they are of.
    pub fn files(&self) -> impl Iterator<Item = (String, &StoredFile)> {
        let of_piece = |piece: &AssembledPiece| piece.piece.to_string();
        let pieces = self
            .pieces
            .iter()
            .flat_map(move |piece| piece.files.iter().map(move |file| (of_piece(piece), file)));
        pieces.chain(self.companions.iter().map(|companion| ("companion".to_owned(), &companion.file)))
    }

    /// Reads the one in a checkpoint's folder.
    ///
    /// # Errors
    /// There is none, or it is of a later version.
    pub fn read(checkpoint: &Path) -> Result<Self> {
        let path = checkpoint.join(ASSEMBLY);
        let text = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::input("the checkpoint does not say what it was put together from")
                    .at(&path)
                    .hint("checkpoints of sweeps do, and those of `qlaunch quantize --store DIR`")
            }
            _ => Error::io("read", &path, &error),
        })?;
        let found: Self = serde_json::from_slice(&text)
            .map_err(|error| Error::input(format!("it is not understood: {error}")).at(&path))?;
        if found.version != VERSION {
            return Err(Error::input(format!("it has version {}, known is {VERSION}", found.version))
                .at(&path)
                .hint("use the version of qlaunch that made it"));
        }
        Ok(found)
    }

    /// Holds every weight file, and what else is shared, against its digest; `progress` is told the bytes of each.
    pub fn damages(&self, checkpoint: &Path, progress: &mut dyn FnMut(u64)) -> Vec<Damage> {
        let mut damages = Vec::new();
        for (piece, file) in self.files() {
            let path = checkpoint.join(&file.name);
            let why = match sha256_of_file(&path) {
                Ok((digest, _)) if digest == file.sha256 => None,
                Ok((_, bytes)) if bytes != file.bytes => {
                    Some(format!("it has {bytes} bytes, and had {}", file.bytes))
                }
                Ok(_) => Some("it has other bytes than were written".to_owned()),
                Err(error) => Some(error.message),
            };
            progress(file.bytes);
            damages.extend(why.map(|why| Damage { piece, file: path, why }));
        }
        damages
    }

    /// Bytes of all these files.
    pub fn bytes(&self) -> u64 {
        self.files().map(|(_, file)| file.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256;

    #[test]
    fn a_build_of_version_1_is_understood_and_written_alike() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/store/build-v1");
        let assembly = Assembly::read(Path::new(folder)).unwrap();
        assert_eq!((assembly.pieces.len(), assembly.bytes()), (2, 7));
        let text = std::fs::read_to_string(Path::new(folder).join(ASSEMBLY)).unwrap();
        assert_eq!(serde_json::to_string_pretty(&assembly).unwrap(), text.trim_end());
    }

    #[test]
    fn files_that_changed_or_are_gone_are_named() {
        let work = tempfile::tempdir().unwrap();
        let stored = |name: &str, content: &str| {
            std::fs::write(work.path().join(name), content).unwrap();
            StoredFile { name: name.to_owned(), bytes: content.len() as u64, sha256: sha256(content) }
        };
        let files = vec![stored("a", "abc"), stored("b", "abcd"), stored("c", "x"), stored("d", "whole")];
        let piece = AssembledPiece { piece: Piece::Layer(0), key: sha256("k").parse().unwrap(), files };
        let assembly = Assembly::new(vec![piece], Vec::new());
        let mut read = 0;
        assert!(assembly.damages(work.path(), &mut |bytes| read += bytes).is_empty());
        assert_eq!(read, assembly.bytes());
        std::fs::write(work.path().join("a"), "abd").unwrap();
        std::fs::write(work.path().join("b"), "ab").unwrap();
        std::fs::remove_file(work.path().join("c")).unwrap();
        let why: Vec<String> =
            assembly.damages(work.path(), &mut |_| ()).into_iter().map(|damage| damage.why).collect();
        assert_eq!(why.len(), 3);
        assert!(why[0].contains("other bytes") && why[1].contains("2 bytes, and had 4"), "{why:?}");
    }
}
