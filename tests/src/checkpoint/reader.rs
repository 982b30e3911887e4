//! Reads safetensors strictly: every byte belongs to one tensor.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// One tensor as it lies on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Type by its safetensors name.
    pub dtype: String,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Its bytes, little endian.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// SHA-256 of its bytes, in hexadecimal.
    pub fn digest(&self) -> String {
        Sha256::digest(&self.bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The value of an F32 scalar.
    pub fn scalar(&self) -> f32 {
        assert_eq!((self.dtype.as_str(), self.bytes.len()), ("F32", 4), "not an F32 scalar");
        f32::from_le_bytes([self.bytes[0], self.bytes[1], self.bytes[2], self.bytes[3]])
    }

    /// The values of a BF16 or F32 tensor.
    pub fn values(&self) -> Vec<f32> {
        match self.dtype.as_str() {
            "BF16" => bf16_values(self),
            "F32" => self.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            other => panic!("no values of {other} tensors"),
        }
    }
}

/// The values of a BF16 tensor.
pub fn bf16_values(tensor: &Tensor) -> Vec<f32> {
    assert_eq!(tensor.dtype, "BF16", "not a BF16 tensor");
    let pairs = tensor.bytes.chunks_exact(2);
    pairs.map(|pair| half::bf16::from_le_bytes([pair[0], pair[1]]).to_f32()).collect()
}

/// Every tensor of a checkpoint, through the index where there is one.
pub fn read_folder(folder: &Path) -> BTreeMap<String, Tensor> {
    let index = folder.join("model.safetensors.index.json");
    if !index.exists() {
        return read_file(&folder.join("model.safetensors"));
    }
    let map = crate::places::read_json(&index)["weight_map"].clone();
    let map: BTreeMap<String, String> = serde_json::from_value(map).expect("weight_map maps names to files");
    let mut files: Vec<&String> = map.values().collect();
    files.sort();
    files.dedup();
    let mut tensors = BTreeMap::new();
    for file in files {
        for (name, tensor) in read_file(&folder.join(file)) {
            assert_eq!(map.get(&name), Some(file), "the index does not place {name} in {file}");
            tensors.insert(name, tensor);
        }
    }
    assert!(map.keys().eq(tensors.keys()), "the index names tensors that no shard holds");
    tensors
}

/// Every tensor of one file.
pub fn read_file(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    let length = usize::try_from(length).expect("a header that fits");
    let header: BTreeMap<String, Value> =
        serde_json::from_slice(&bytes[8..8 + length]).expect("a JSON header");
    let body = &bytes[8 + length..];
    let mut spans = Vec::new();
    let mut tensors = BTreeMap::new();
    for (name, entry) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
        let [start, end]: [usize; 2] =
            serde_json::from_value(entry["data_offsets"].clone()).expect("two offsets");
        let shape: Vec<usize> = serde_json::from_value(entry["shape"].clone()).expect("a shape");
        let dtype = entry["dtype"].as_str().expect("a dtype").to_owned();
        let elements: usize = shape.iter().product();
        assert_eq!(
            end - start,
            elements * width(&dtype),
            "{name}: {dtype} {shape:?} does not fill its bytes"
        );
        spans.push((start, end));
        tensors.insert(name, Tensor { dtype, shape, bytes: body[start..end].to_vec() });
    }
    spans.sort_unstable();
    let filled = spans.iter().fold(0, |at, &(start, end)| {
        assert_eq!(at, start, "{} has a gap or an overlap at byte {at}", path.display());
        end
    });
    assert_eq!(filled, body.len(), "{} has bytes after its last tensor", path.display());
    tensors
}

/// Bytes of one element.
fn width(dtype: &str) -> usize {
    match dtype {
        "F64" | "I64" | "U64" => 8,
        "F32" | "I32" | "U32" => 4,
        "BF16" | "F16" | "I16" | "U16" => 2,
        "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "I8" | "U8" | "BOOL" => 1,
        other => panic!("unknown dtype {other}"),
    }
}

/// Whether a loader would take this folder for a finished checkpoint: a config and weights under their final names.
pub fn looks_whole(folder: &Path) -> bool {
    let weights = ["model.safetensors", "model.safetensors.index.json"];
    folder.join("config.json").exists() && weights.iter().any(|name| folder.join(name).exists())
}
