//! The worker: one binary for every node.

pub mod ops;
pub mod quantize;
pub mod tensor;
pub mod tokens;
