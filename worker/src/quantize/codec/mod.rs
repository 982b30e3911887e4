//! Codecs: what a stored weight or a rounded activation looks like, bit by bit. One file per format.

mod amax;
pub mod e2m1;
pub mod e4m3;
pub mod fp8;
pub mod nvfp4;
mod prefetch;
mod search;
mod source;

pub use amax::amax;
pub use source::Source;
