//! Calibration algorithms: one file each; `dispatch` runs what a recipe names.

mod act_headroom;
mod awq_clip;
mod awq_lite;
#[cfg(test)]
mod awq_tests;
mod cholesky;
mod dispatch;
mod eigen;
mod gptq;
mod histogram;
mod local_hessian;
mod metric;
mod mse;
mod singular;
mod smoothquant;
#[cfg(test)]
mod specimen;
mod svdquant;
mod sweep;
mod tally;

pub use dispatch::calibrate;
pub use histogram::Histogram;
pub(super) use svdquant::share_branch;
