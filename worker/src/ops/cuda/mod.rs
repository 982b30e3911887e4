//! The CUDA backend: the decoder's operations on an NVIDIA GPU, held against the CPU's.
//!
//! Nothing here is linked: driver and cuBLASLt are found when a GPU is asked for, and the kernels are inside of the binary.

mod attention;
mod backend;
mod codes;
mod device;
#[cfg(test)]
pub(crate) mod emulated;
mod errors;
mod kernels;
mod lanes;
#[cfg(test)]
mod lanes_tests;
mod likelihood;
mod pool;
mod product;
mod statistics;
mod tensor;
#[cfg(test)]
mod tests;
mod values;

pub use backend::CudaBackend;
pub use device::load;
