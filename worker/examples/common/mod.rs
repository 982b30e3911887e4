//! What the measuring programs have in common.

mod noise;

pub use noise::noise;
