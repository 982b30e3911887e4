//! The CPU backend: the reference for every other one.

mod attention;
mod device;
mod elementwise;
mod exponential;
mod gather;
mod gemm;
mod loss;
mod magnitude;
mod norm;
mod operands;
mod path;
mod rotary;
mod scratch;
mod softmax;

pub use device::CpuBackend;
pub use path::CpuPath;

#[cfg(test)]
mod tests;
