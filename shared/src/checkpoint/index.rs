//! `model.safetensors.index.json`: which file holds which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::INDEX;
use crate::{Error, Result};

/// The index of a checkpoint whose weights are in several files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WeightIndex {
    /// `total_size`, and whatever else a writer left there.
    #[serde(default)]
    metadata: serde_json::Map<String, serde_json::Value>,
    /// Tensor name → file name.
    weight_map: BTreeMap<String, String>,
}

impl WeightIndex {
    /// Reads the index of a folder, where it has one.
    ///
    /// # Errors
    /// It cannot be read or understood, or names something that is no plain file name.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(INDEX);
        if !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read the index", &path, &e))?;
        let index: Self = serde_json::from_str(&text).map_err(|e| {
            Error::input(format!("cannot understand the index: {e}"))
                .at(&path)
                .line(e.line(), e.column())
                .hint("fetch the file again")
        })?;
        if let Some(name) = index.files().iter().find(|name| Path::new(name).components().count() != 1) {
            return Err(Error::input(format!("the index names `{name}`, which is no plain file name"))
                .at(&path)
                .hint("fetch the index again"));
        }
        Ok(Some(index))
    }

    /// Names of the files, sorted.
    pub fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }

    /// Each tensor with the file that holds it, sorted by the tensor's name.
    pub fn places(&self) -> impl Iterator<Item = (&str, &str)> {
        self.weight_map.iter().map(|(tensor, file)| (tensor.as_str(), file.as_str()))
    }

    /// Whether it lists a tensor.
    pub fn has(&self, tensor: &str) -> bool {
        self.weight_map.contains_key(tensor)
    }

    /// Bytes of all tensors, where the writer left them.
    pub fn total_size(&self) -> Option<u64> {
        let total = self.metadata.get("total_size")?;
        // Some writers leave a float.
        total.as_u64().or_else(|| total.as_f64().filter(|size| *size >= 0.0).map(|size| size as u64))
    }
}
