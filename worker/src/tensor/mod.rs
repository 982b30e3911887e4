//! Tensors: element types, host memory, vector instructions, mapped files and the streaming writer.

pub mod dtype;
pub mod host;
pub(crate) mod simd;

pub use dtype::DType;
