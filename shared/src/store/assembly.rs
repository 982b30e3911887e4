//! What a checkpoint was put together from: every piece with its key and the digests of its files, or the digest of every
//! tensor where it was made without a store.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Digested, Key};
use crate::assign::Piece;
use crate::checkpoint::CheckpointFiles;
use crate::digest::{sha256_of_file, sha256_of_part};
use crate::{Error, Result};

/// Name of the file in a checkpoint's folder.
pub const ASSEMBLY: &str = "build.json";

/// The version that this program writes. Version 1 knew no tensors.
const VERSION: u32 = 2;

/// A checkpoint and its pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assembly {
    /// Version of this format.
    pub version: u32,
    /// Pieces in order; none of a checkpoint that was made without a store.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub pieces: Vec<AssembledPiece>,
    /// Headers of weight files by the files' names, of a checkpoint that was made without a store.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub headers: Vec<Digested>,
    /// Tensors by name, of such a checkpoint.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tensors: Vec<Digested>,
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
    pub file: Digested,
}

/// A piece of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssembledPiece {
    /// Which.
    pub piece: Piece,
    /// Its key in the store.
    pub key: Key,
    /// Its files, by their names in the checkpoint.
    pub files: Vec<Digested>,
}

/// A file or a tensor of a checkpoint that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The piece, or the tensor where each has a digest; `header` of a weight file, `companion` for what stands beside them.
    pub piece: String,
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl Assembly {
    /// Of these.
    pub const fn new(pieces: Vec<AssembledPiece>, companions: Vec<AssembledCompanion>) -> Self {
        Self { version: VERSION, pieces, headers: Vec::new(), tensors: Vec::new(), companions }
    }

    /// Of these headers of weight files, by the files' names, and tensors; made without a store.
    pub const fn of_tensors(headers: Vec<Digested>, tensors: Vec<Digested>) -> Self {
        Self { version: VERSION, pieces: Vec::new(), headers, tensors, companions: Vec::new() }
    }

    /// As the text of its file.
    ///
    /// # Errors
    /// None that input can cause.
    pub fn encode(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::bug(format!("cannot spell what was put together: {error}")))?;
        Ok(format!("{text}\n"))
    }

    /// Keys of everything that it was put together from.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        let companions = self.companions.iter().map(|companion| &companion.key);
        self.pieces.iter().map(|piece| &piece.key).chain(companions)
    }

    /// All files with what they are of.
    pub fn files(&self) -> impl Iterator<Item = (String, &Digested)> {
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
                Error::input("the checkpoint does not say what it was put together from").at(&path).hint(
                    "checkpoints of sweeps and of `qlaunch quantize` do, unless `--no-digests` was given",
                )
            }
            _ => Error::io("read", &path, &error),
        })?;
        let found: Self = serde_json::from_slice(&text)
            .map_err(|error| Error::input(format!("it is not understood: {error}")).at(&path))?;
        if !(1..=VERSION).contains(&found.version) {
            return Err(Error::input(format!("it has version {}, known is {VERSION}", found.version))
                .at(&path)
                .hint("use the version of qlaunch that made it"));
        }
        Ok(found)
    }

    /// Holds every weight file or tensor, and what else is shared, against its digest; `progress` is told the bytes of each.
    ///
    /// # Errors
    /// The headers of the weight files cannot be read, where tensors have digests.
    pub fn damages(&self, checkpoint: &Path, progress: &mut dyn FnMut(u64)) -> Result<Vec<Damage>> {
        let mut damages = Vec::new();
        for (piece, file) in self.files() {
            let path = checkpoint.join(&file.name);
            let why = file.difference(sha256_of_file(&path));
            progress(file.bytes);
            damages.extend(why.map(|why| Damage { piece, file: path, why }));
        }
        if !self.tensors.is_empty() {
            damages.extend(self.damaged_tensors(checkpoint, progress)?);
        }
        Ok(damages)
    }

    /// Tensors that are not what they were, are gone, or were not there.
    fn damaged_tensors(&self, checkpoint: &Path, progress: &mut dyn FnMut(u64)) -> Result<Vec<Damage>> {
        let files = CheckpointFiles::open(checkpoint)?;
        let mut damages = Vec::new();
        for known in &self.headers {
            let file = checkpoint.join(&known.name);
            let why = known.difference(sha256_of_part(&file, 0, known.bytes));
            damages.extend(why.map(|why| Damage { piece: "header".to_owned(), file, why }));
        }
        for known in &self.tensors {
            let (file, why) = match files.find(&known.name) {
                None => (checkpoint.to_path_buf(), Some("the tensor is gone".to_owned())),
                Some((header, tensor)) => {
                    let digest = sha256_of_part(&header.path, tensor.offset, tensor.length);
                    (header.path.clone(), known.difference(digest))
                }
            };
            progress(known.bytes);
            damages.extend(why.map(|why| Damage { piece: known.name.clone(), file, why }));
        }
        let known: BTreeSet<&str> = self.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        let others = files.tensors().filter(|tensor| !known.contains(tensor.name.as_str()));
        damages.extend(others.map(|other| Damage {
            piece: other.name.clone(),
            file: checkpoint.to_path_buf(),
            why: "the tensor was not there".to_owned(),
        }));
        Ok(damages)
    }

    /// Bytes of all these files and tensors.
    pub fn bytes(&self) -> u64 {
        let tensors: u64 = self.headers.iter().chain(&self.tensors).map(|known| known.bytes).sum();
        tensors + self.files().map(|(_, file)| file.bytes).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::checkpoint::{DType, Layout, PlannedTensor};
    use crate::digest::sha256;

    #[test]
    fn a_build_of_version_1_is_understood_and_written_alike() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/store/build-v1");
        let assembly = Assembly::read(Path::new(folder)).unwrap();
        assert_eq!((assembly.pieces.len(), assembly.bytes()), (2, 7));
        assert_eq!(
            assembly.encode().unwrap(),
            std::fs::read_to_string(Path::new(folder).join(ASSEMBLY)).unwrap()
        );
    }

    #[test]
    fn a_build_of_version_2_knows_tensors() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/store/build-v2");
        let assembly = Assembly::read(Path::new(folder)).unwrap();
        let own = |name: &str| vec![Digested { name: name.to_owned(), bytes: 3, sha256: sha256("abc") }];
        assert_eq!(assembly, Assembly::of_tensors(own("model.safetensors"), own("model.norm.weight")));
        assert_eq!(
            assembly.encode().unwrap(),
            std::fs::read_to_string(Path::new(folder).join(ASSEMBLY)).unwrap()
        );
    }

    #[test]
    fn tensors_that_changed_are_named() {
        let work = tempfile::tempdir().unwrap();
        let tensor = |name: &str| PlannedTensor { name: name.to_owned(), dtype: DType::U8, shape: vec![2] };
        let layout = Layout::plan(&[tensor("a"), tensor("b")], u64::MAX, &BTreeMap::new()).unwrap();
        let shard = &layout.shards[0];
        let path = work.path().join(&shard.file);
        let write = |header: &[u8], data: &[u8]| std::fs::write(&path, [header, data].concat()).unwrap();
        let digested = |name: &str, bytes: &[u8]| Digested {
            name: name.to_owned(),
            bytes: bytes.len() as u64,
            sha256: sha256(bytes),
        };
        let tensors = vec![digested("a", &[1, 2]), digested("b", &[3, 4])];
        let mut assembly = Assembly::of_tensors(vec![digested(&shard.file, &shard.header)], tensors);
        let damaged = |assembly: &Assembly| -> Vec<String> {
            let damages = assembly.damages(work.path(), &mut |_| ()).unwrap();
            damages.into_iter().map(|damage| damage.piece).collect()
        };
        write(&shard.header, &[1, 2, 3, 4]);
        assert_eq!(damaged(&assembly), [""; 0]);
        write(&shard.header, &[1, 2, 3, 5]);
        assert_eq!(damaged(&assembly), ["b"]);
        let mut signed = shard.header.clone();
        let dtype = signed.windows(2).position(|letters| letters == b"U8").unwrap();
        signed[dtype] = b'I';
        write(&signed, &[1, 2, 3, 4]);
        assert_eq!(damaged(&assembly), ["header"]);
        write(&shard.header, &[1, 2, 3, 4]);
        assembly.tensors.remove(0);
        assembly.tensors.push(digested("c", &[]));
        assert_eq!(damaged(&assembly), ["c", "a"]);
    }

    #[test]
    fn files_that_changed_or_are_gone_are_named() {
        let work = tempfile::tempdir().unwrap();
        let stored = |name: &str, content: &str| {
            std::fs::write(work.path().join(name), content).unwrap();
            Digested { name: name.to_owned(), bytes: content.len() as u64, sha256: sha256(content) }
        };
        let files = vec![stored("a", "abc"), stored("b", "abcd"), stored("c", "x"), stored("d", "whole")];
        let piece = AssembledPiece { piece: Piece::Layer(0), key: sha256("k").parse().unwrap(), files };
        let assembly = Assembly::new(vec![piece], Vec::new());
        let mut read = 0;
        assert!(assembly.damages(work.path(), &mut |bytes| read += bytes).unwrap().is_empty());
        assert_eq!(read, assembly.bytes());
        std::fs::write(work.path().join("a"), "abd").unwrap();
        std::fs::write(work.path().join("b"), "ab").unwrap();
        std::fs::remove_file(work.path().join("c")).unwrap();
        let why: Vec<String> = assembly
            .damages(work.path(), &mut |_| ())
            .unwrap()
            .into_iter()
            .map(|damage| damage.why)
            .collect();
        assert_eq!(why.len(), 3);
        assert!(why[0].contains("other bytes") && why[1].contains("2 bytes, and had 4"), "{why:?}");
    }
}
