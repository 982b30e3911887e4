//! Matrix products: packed operands, register-tiled kernels, one driver.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512bf16;
mod driver;
mod form;
mod gram;
mod kernel;
mod pack;
mod portable;
#[cfg(target_arch = "x86_64")]
mod turn;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512bf16::Avx512Bf16;
pub(crate) use driver::{Product, linear};
pub(crate) use form::Form;
pub(crate) use gram::{add_gram, mirror};
pub(crate) use kernel::{
    Begin, KernelElement, MicroKernel, PackFrom, PackedElement, WithKernel, with_wide_kernel,
};
pub(crate) use pack::{LeftLayout, Matrix, RightLayout};
pub(crate) use portable::Portable;

#[cfg(test)]
mod tests;
