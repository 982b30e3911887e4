//! The header of one safetensors file: read, and checked against the file's length.
//!
//! Layout: u64 little-endian header length, JSON object, tensor data. Offsets count from the end of the header.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DType;
use crate::{Error, Result};

/// The format's own limit on the JSON part.
const LARGEST_HEADER: u64 = 100_000_000;

/// One tensor of a safetensors file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Full name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, row-major; empty for a scalar.
    pub shape: Vec<usize>,
    /// First byte, counted from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// The header of one safetensors file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The file.
    pub path: PathBuf,
    /// Length of the file in bytes.
    pub file_length: u64,
    /// Free-text metadata.
    pub metadata: BTreeMap<String, String>,
    /// Tensors by offset.
    pub tensors: Vec<TensorEntry>,
}

/// One tensor as the JSON spells it.
#[derive(Serialize, Deserialize)]
pub(super) struct RawEntry {
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    pub(super) data_offsets: [u64; 2],
}

/// Number of elements of a shape, unless it does not fit.
pub fn elements(shape: &[usize]) -> Option<u64> {
    shape.iter().try_fold(1u64, |count, &side| count.checked_mul(u64::try_from(side).ok()?))
}

/// Reads and checks the header of a safetensors file.
///
/// # Errors
/// Names the file, the tensor where there is one, and the remedy: the file is missing, shorter than its header says,
/// not safetensors, or a tensor's offsets do not fit its shape, the file or its neighbours.
pub fn read_header(path: &Path) -> Result<Header> {
    let broken = |message: String| {
        Error::input(message).at(path).hint("the download may be incomplete: fetch the file again")
    };
    let mut file = File::open(path).map_err(|e| Error::io("open the safetensors file", path, &e))?;
    let file_length = file.metadata().map_err(|e| Error::io("read the length", path, &e))?.len();
    let mut length = [0u8; 8];
    file.read_exact(&mut length)
        .map_err(|_| broken(format!("truncated: {file_length} bytes are no safetensors file")))?;
    let length = u64::from_le_bytes(length);
    if length > LARGEST_HEADER {
        return Err(broken(format!("not a safetensors file: its header claims {length} bytes")));
    }
    if length + 8 > file_length {
        return Err(broken(format!(
            "truncated: the header ends at byte {}, the file at {file_length}",
            length + 8
        )));
    }
    let mut json = vec![0u8; usize::try_from(length).map_err(|_| broken("header too large".to_owned()))?];
    file.read_exact(&mut json).map_err(|e| Error::io("read the header", path, &e))?;
    let mut header =
        parse(&json, length + 8).map_err(|e| broken(e.message).key(e.place.key.unwrap_or_default()))?;
    header.path = path.to_path_buf();
    header.file_length = file_length;
    check_offsets(&header, length + 8).map_err(|e| Error {
        place: Box::new(crate::error::Place { file: Some(path.to_path_buf()), ..*e.place }),
        hint: Some("the download may be incomplete: fetch the file again".to_owned()),
        ..e
    })?;
    Ok(header)
}

/// Takes the JSON apart; `data_start` is where tensor data begins in the file.
fn parse(json: &[u8], data_start: u64) -> Result<Header> {
    let raw: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(json).map_err(|e| Error::input(format!("not a safetensors header: {e}")))?;
    let mut metadata = BTreeMap::new();
    let mut tensors = Vec::with_capacity(raw.len());
    for (name, value) in raw {
        if name == "__metadata__" {
            metadata = serde_json::from_value(value).map_err(|e| {
                Error::input(format!("metadata is not text to text: {e}")).key("__metadata__")
            })?;
            continue;
        }
        let entry: RawEntry = serde_json::from_value(value)
            .map_err(|e| Error::input(format!("cannot understand the tensor: {e}")).key(name.as_str()))?;
        let [begin, end] = entry.data_offsets;
        let length = end.checked_sub(begin).ok_or_else(|| {
            Error::input(format!("offsets run backwards: {begin}..{end}")).key(name.as_str())
        })?;
        let bytes = elements(&entry.shape).and_then(|n| n.checked_mul(entry.dtype.size() as u64));
        if bytes != Some(length) {
            return Err(Error::input(format!(
                "{} {:?} does not fit its {length} bytes",
                entry.dtype, entry.shape
            ))
            .key(name));
        }
        tensors.push(TensorEntry {
            name,
            dtype: entry.dtype,
            shape: entry.shape,
            offset: data_start.saturating_add(begin),
            length,
        });
    }
    tensors.sort_by_key(|t| (t.offset, t.length));
    Ok(Header { path: PathBuf::new(), file_length: 0, metadata, tensors })
}

/// Tensors must follow each other without overlap and end within the file.
fn check_offsets(header: &Header, data_start: u64) -> Result<()> {
    let mut end = data_start;
    for tensor in &header.tensors {
        if tensor.offset < end {
            return Err(Error::input("overlaps the tensor before it").key(tensor.name.as_str()));
        }
        end = tensor.offset.saturating_add(tensor.length);
        if end > header.file_length {
            return Err(Error::input(format!(
                "truncated: the tensor ends at byte {end}, the file at {}",
                header.file_length
            ))
            .key(tensor.name.as_str()));
        }
    }
    Ok(())
}
