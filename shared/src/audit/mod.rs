//! The post-quantization gates: static checks of a checkpoint against its source and its plan.
//!
//! They read headers, configs and scales, never weights, and each says on what evidence it decides.

mod coverage;
pub mod engines;
mod gates;
mod metadata;
mod scales;
mod size;
mod vision;

pub use gates::{GATES, Subject, audit, forbids_evaluation};
