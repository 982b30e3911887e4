//! Tensor operations: the trait that a forward pass is written against, and the devices that carry it out.

pub mod backend;
pub mod coding;
pub mod cpu;
pub mod cuda;
mod hadamard;
mod operands;
pub mod routing;

pub use backend::{
    Activation, AttentionShape, Backend, Linear, Magnitude, Prediction, RotaryTables, RowScore,
};
pub use coding::{Coder, Coding, Cut, Decoding, Mx, Rounding, Stored};
pub use cpu::{CpuBackend, CpuPath};
pub use cuda::CudaBackend;
pub use hadamard::hadamard;
pub use routing::{Routes, Routing, Share};
