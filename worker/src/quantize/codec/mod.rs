//! Codecs: what a stored weight or a rounded activation looks like, bit by bit. One file per format.

mod amax;
pub mod e2m1;
pub mod e4m3;
pub mod fp8;
pub mod integer;
pub mod mx;
pub mod nf4;
pub mod nvfp4;
mod runs;
mod search;
mod source;

pub use amax::{amax, exported};
pub use runs::Runs;
pub use source::Source;
