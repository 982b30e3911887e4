//! The weights of a checkpoint folder: one safetensors file, or shards with an index.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{Header, TensorEntry, WeightIndex, read_header};
use crate::{Error, Result};

/// Name of the weights where they are one file.
pub const SINGLE: &str = "model.safetensors";
/// Name of the index where they are several.
pub const INDEX: &str = "model.safetensors.index.json";

/// All weight files of a checkpoint folder, headers only.
#[derive(Debug, Clone)]
pub struct CheckpointFiles {
    /// The folder.
    pub folder: PathBuf,
    /// The files, in order of their names.
    pub headers: Vec<Header>,
    /// Tensor name → (file, tensor) in `headers`.
    places: HashMap<String, (usize, usize)>,
}

impl CheckpointFiles {
    /// Reads the headers of `model.safetensors`, or of the shards that the index names.
    ///
    /// # Errors
    /// Neither is there, a shard is missing or broken, a tensor is in two files or not where the index says.
    pub fn open(folder: &Path) -> Result<Self> {
        let index_path = folder.join(INDEX);
        let single = folder.join(SINGLE);
        if let Some(index) = WeightIndex::read(folder)? {
            return Self::open_shards(folder, &index, &index_path);
        }
        if single.is_file() {
            return Self::from_headers(folder, vec![read_header(&single)?]);
        }
        let error = Error::input(format!("no `{SINGLE}` and no `{INDEX}`")).at(folder);
        Err(if folder.is_dir() {
            error.hint("give a folder in Hugging Face layout with safetensors weights")
        } else {
            error.hint("there is no such folder: check the path")
        })
    }

    fn open_shards(folder: &Path, index: &WeightIndex, index_path: &Path) -> Result<Self> {
        let headers = index.files().into_iter().map(|name| read_header(&folder.join(name)));
        let headers = headers.collect::<Result<Vec<Header>>>()?;
        let files = Self::from_headers(folder, headers)?;
        for (tensor, file) in index.places() {
            let found = files.places.get(tensor).map(|&(f, _)| &files.headers[f].path);
            if found.is_none_or(|path| !path.ends_with(file)) {
                return Err(Error::input(format!(
                    "the index places the tensor in `{file}`, which has it not"
                ))
                .at(index_path)
                .key(tensor)
                .hint("index and shards are of different downloads: fetch them again"));
            }
        }
        Ok(files)
    }

    /// The weights that headers tell of.
    ///
    /// # Errors
    /// A tensor stands in two of them.
    pub fn from_headers(folder: &Path, headers: Vec<Header>) -> Result<Self> {
        let mut places = HashMap::new();
        for (f, header) in headers.iter().enumerate() {
            for (t, tensor) in header.tensors.iter().enumerate() {
                if places.insert(tensor.name.clone(), (f, t)).is_some() {
                    return Err(Error::input("the tensor stands in two files")
                        .at(&header.path)
                        .key(tensor.name.as_str())
                        .hint("remove the files that the index does not name"));
                }
            }
        }
        Ok(Self { folder: folder.to_path_buf(), headers, places })
    }

    /// The tensor of this name and the file that holds it.
    pub fn find(&self, name: &str) -> Option<(&Header, &TensorEntry)> {
        let &(f, t) = self.places.get(name)?;
        Some((&self.headers[f], &self.headers[f].tensors[t]))
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn tensor(&self, name: &str) -> Result<&TensorEntry> {
        self.find(name).map(|(_, tensor)| tensor).ok_or_else(|| {
            Error::input("the tensor is missing")
                .at(&self.folder)
                .key(name)
                .hint("the checkpoint is incomplete, or its `config.json` describes another model")
        })
    }

    /// All tensors, file by file.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorEntry> {
        self.headers.iter().flat_map(|header| &header.tensors)
    }

    /// Bytes of all files, headers included.
    pub fn bytes(&self) -> u64 {
        self.headers.iter().map(|header| header.file_length).sum()
    }
}
