//! The CPU backend: the reference for every other one.

mod attention;
mod channels;
mod device;
mod elements;
mod elementwise;
mod exponential;
mod gather;
mod gemm;
mod gram;
mod loss;
mod magnitude;
mod norm;
mod path;
mod quadratic;
mod rotary;
mod route;
mod scatter;
mod scratch;
mod softmax;

pub use device::CpuBackend;
pub use path::CpuPath;
pub use quadratic::{QuadraticForm, mirror};

#[cfg(test)]
mod tests;
