//! Which model a checkpoint was made from: a digest of the source's weights that a person can compute again.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::digest::hex;

use crate::checkpoint::{Header, TensorEntry};
use crate::model::Model;
use crate::{Error, Result};

/// Weights up to this size are digested whole, in bytes; hashing more would cost more than quantizing them.
const WHOLE: u64 = 256 << 20;
/// Bytes of one sample of a tensor.
const SAMPLE: u64 = 4096;
/// Samples of a tensor: its beginning, its middle, its end.
const SAMPLES: u64 = 3;

/// A source model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Name of its folder.
    pub name: String,
    /// The folder itself, on the machine that made the checkpoint.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub folder: Option<PathBuf>,
    /// SHA-256 of what `digest_of` says.
    pub sha256: String,
    /// What was digested.
    pub digest_of: String,
}

/// The name of a model for people: that of its folder, or in a cache of the Hub that of its repository, where folders are called
/// like commits.
pub fn model_name(folder: &Path) -> String {
    let text = |folder: &Path| folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let repository = folder.parent().filter(|above| above.ends_with("snapshots")).and_then(Path::parent);
    let name =
        repository.and_then(text).and_then(|name| Some(name.strip_prefix("models--")?.replace("--", "/")));
    name.or_else(|| text(folder)).unwrap_or_default()
}

/// The identity of a model, from the bytes of its weights.
///
/// Of each file in the order of names, the digest covers the lengths, and for each tensor in the order of offsets its name, type, shape
/// and data: all of it where the weights are at most 256 MiB, else three samples of 4096 bytes.
///
/// # Errors
/// A file cannot be read.
pub fn identity(model: &Model) -> Result<Identity> {
    let whole = model.files.bytes() <= WHOLE;
    let mut digest = Sha256::new();
    for header in &model.files.headers {
        digest.update(header.file_length.to_le_bytes());
        add_file(header, whole, &mut digest)?;
    }
    let folder = model.folder.canonicalize().unwrap_or_else(|_| model.folder.clone());
    Ok(Identity {
        name: model_name(&folder),
        folder: Some(folder),
        sha256: hex(digest.finalize()),
        digest_of: if whole {
            "names, types, shapes and data of all tensors".to_owned()
        } else {
            format!("names, types and shapes of all tensors, and {SAMPLES} × {SAMPLE} bytes of each")
        },
    })
}

fn add_file(header: &Header, whole: bool, digest: &mut Sha256) -> Result<()> {
    let failed = |error: std::io::Error| Error::io("read the weights", &header.path, &error);
    let mut file = File::open(&header.path).map_err(failed)?;
    let mut piece = vec![0u8; 1 << 20];
    for tensor in &header.tensors {
        digest.update(format!("{} {} {:?}\n", tensor.name, tensor.dtype, tensor.shape));
        for (begin, length) in ranges(tensor, whole) {
            file.seek(SeekFrom::Start(begin)).map_err(failed)?;
            let mut left = length;
            while left > 0 {
                let now = left.min(piece.len() as u64);
                file.read_exact(&mut piece[..now as usize]).map_err(failed)?;
                digest.update(&piece[..now as usize]);
                left -= now;
            }
        }
    }
    Ok(())
}

/// Which bytes of a tensor are digested.
fn ranges(tensor: &TensorEntry, whole: bool) -> Vec<(u64, u64)> {
    if whole || tensor.length <= SAMPLES * SAMPLE {
        return vec![(tensor.offset, tensor.length)];
    }
    let last = tensor.length - SAMPLE;
    (0..SAMPLES).map(|sample| (tensor.offset + last * sample / (SAMPLES - 1), SAMPLE)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::DType;
    use crate::model::fixture;

    #[test]
    fn one_changed_byte_is_another_model() {
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &fixture::config());
        let model = Model::open(folder.path()).unwrap();
        let before = identity(&model).unwrap();
        assert_eq!(identity(&model).unwrap(), before);
        let path = folder.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_ne!(identity(&model).unwrap().sha256, before.sha256);
    }

    #[test]
    fn a_model_is_called_like_its_folder_or_its_repository() {
        let name = |folder: &str| model_name(Path::new(folder));
        assert_eq!(name("/models/tiny"), "tiny");
        assert_eq!(name("/hub/models--org--tiny-1b/snapshots/0123"), "org/tiny-1b");
        assert_eq!(name("/backup/snapshots/monday"), "monday");
    }

    #[test]
    fn samples_are_the_ends_and_the_middle() {
        let tensor = TensorEntry {
            name: "a".into(),
            dtype: DType::U8,
            shape: vec![20_000],
            offset: 100,
            length: 20_000,
        };
        assert_eq!(ranges(&tensor, false), [(100, 4096), (100 + 7952, 4096), (100 + 15_904, 4096)]);
        assert_eq!(ranges(&tensor, true), [(100, 20_000)]);
        let small = TensorEntry { length: 12_288, ..tensor };
        assert_eq!(ranges(&small, false), [(100, 12_288)]);
    }
}
