//! Checkpoints on disk: safetensors headers, shards and index, layouts to be written, and the configs beside them.

mod dtype;
mod files;
mod header;
mod layout;
mod quantization;

pub use dtype::DType;
pub use files::{CheckpointFiles, INDEX, SINGLE};
pub use header::{Header, TensorEntry, elements, read_header};
pub use layout::{Layout, PlannedTensor, Shard};
pub use quantization::{LayerAlgorithm, QuantizationConfig, collapse_excluded};
