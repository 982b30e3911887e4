//! Writes safetensors: one file, or shards with an index.

use std::path::Path;

use serde_json::{Map, Value, json};

/// A tensor to write.
#[derive(Debug, Clone)]
pub struct NamedTensor {
    /// Its name in the checkpoint.
    pub name: String,
    /// Type by its safetensors name.
    pub dtype: &'static str,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Its bytes, little endian.
    pub bytes: Vec<u8>,
}

/// Writes one file.
pub fn write_safetensors(path: &Path, tensors: &[NamedTensor]) {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut at = 0;
    for tensor in tensors {
        let end = at + tensor.bytes.len();
        let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end]});
        header.insert(tensor.name.clone(), entry);
        at = end;
    }
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().wrapping_neg() % 8));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    tensors.iter().for_each(|tensor| bytes.extend(&tensor.bytes));
    std::fs::write(path, bytes).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}

/// Writes `shards` files of about equal count, and their index.
pub fn write_sharded(folder: &Path, tensors: &[NamedTensor], shards: usize) {
    let mut map = Map::new();
    let per_shard = tensors.len().div_ceil(shards);
    for (number, shard) in tensors.chunks(per_shard).enumerate() {
        let file = format!("model-{:05}-of-{shards:05}.safetensors", number + 1);
        write_safetensors(&folder.join(&file), shard);
        map.extend(shard.iter().map(|tensor| (tensor.name.clone(), Value::from(file.clone()))));
    }
    let total: usize = tensors.iter().map(|tensor| tensor.bytes.len()).sum();
    let index = json!({"metadata": {"total_size": total}, "weight_map": map});
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string())
        .expect("a writable folder");
}
