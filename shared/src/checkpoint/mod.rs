//! Checkpoints on disk: safetensors headers, shards and index, layouts to be written, and the configs beside them.

mod algorithm;
mod declared;
mod dtype;
mod files;
mod header;
mod index;
mod layout;
mod quantization;

pub use algorithm::{CacheAlgorithm, LayerAlgorithm};
pub use declared::Declared;
pub use dtype::DType;
pub use files::{CheckpointFiles, INDEX, SINGLE};
pub use header::{Header, TensorEntry, elements, read_header};
pub use index::WeightIndex;
pub use layout::{Layout, PlannedTensor, Shard};
pub use quantization::{QuantizationConfig, collapse_excluded};
