//! Tensors: element types, host memory, large pages, vector instructions, mapped files and the streaming writer.

pub mod dtype;
pub mod host;
mod mapped;
pub(crate) mod pages;
pub(crate) mod simd;
mod writer;

pub use dtype::DType;
pub use mapped::{Mapped, MappedCheckpoint};
pub use writer::{Writer, discard};
