//! What lies beside an artifact's files: what it was made from, by whom, and the digest of every file.

use serde::{Deserialize, Serialize};

use super::{Key, Origin};
use crate::Result;

/// Name of the file.
pub const MANIFEST: &str = "manifest.json";

/// The version that this program writes.
pub const VERSION: u32 = 1;

/// An artifact described.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub version: u32,
    /// The artifact's key.
    pub key: Key,
    /// What it is, for people: `tiny-llama layer 3, NVFP4`.
    pub about: String,
    /// What it was made from.
    pub origin: Origin,
    /// Its files, by name.
    pub files: Vec<Digested>,
    /// Host on which it was made.
    pub host: String,
    /// When, in seconds since 1970 by that host's clock.
    pub made_at: u64,
    /// CPU time that it took, in seconds; what a hit saves.
    pub cpu_seconds: f64,
    /// Tokens that were sent through the layer in that time, of statistics; of a layer's several artifacts one has them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tokens: Option<u64>,
}

/// Named bytes and their digest: a file, or a tensor of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digested {
    /// Name in the artifact's folder, or in the checkpoint.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the content.
    pub sha256: String,
}

impl Manifest {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// A file by name.
    pub fn file(&self, name: &str) -> Option<&Digested> {
        self.files.iter().find(|file| file.name == name)
    }
}

impl Digested {
    /// In what the bytes that were read differ from these, by their digest and length.
    pub fn difference(&self, read: Result<(String, u64)>) -> Option<String> {
        match read {
            Ok((digest, _)) if digest == self.sha256 => None,
            Ok((_, bytes)) if bytes != self.bytes => {
                Some(format!("it has {bytes} bytes, and had {}", self.bytes))
            }
            Ok(_) => Some("it has other bytes than were written".to_owned()),
            Err(error) => Some(error.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_version_1_is_understood_and_written_alike() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/store/manifest-v1.json");
        let text = std::fs::read_to_string(path).unwrap();
        let manifest: Manifest = serde_json::from_str(&text).unwrap();
        assert_eq!(manifest.origin.key(), manifest.key);
        assert_eq!((manifest.bytes(), manifest.file("layer.safetensors").unwrap().bytes), (3, 3));
        assert_eq!(serde_json::to_string_pretty(&manifest).unwrap() + "\n", text);
    }
}
