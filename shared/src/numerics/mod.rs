//! What numbers are stored as: quantizer attributes as recipes write them, and the table of formats.

pub mod attributes;
mod blocks;
mod detect;
pub(crate) mod field;
pub mod format;
pub mod parts;

pub use attributes::{
    Axis, Fault, HighPrecision, NumBits, QuantizerAttributes, Rotate, RotateDetails, RotateMode, Scaling,
};
pub use blocks::{Bias, BiasMethod, BlockSizes};
pub use field::Field;
pub use format::{Format, Grain, Nvfp4Scales, Side};
pub use parts::StoredPart;

#[cfg(test)]
mod attributes_tests;
