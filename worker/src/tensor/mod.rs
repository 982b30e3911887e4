//! Tensors: element types, host memory, large pages, vector instructions, mapped files and the streaming writer.

pub mod dtype;
pub mod host;
mod mapped;
pub(crate) mod pages;
mod shards;
pub(crate) mod simd;
mod writer;

pub use dtype::DType;
pub use mapped::{Mapped, MappedCheckpoint};
pub use shards::ShardFiles;
pub use writer::{Writer, discard};
