//! A world for the real program.

mod world;

pub use world::*;
