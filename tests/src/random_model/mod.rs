//! Small random models of every dense family, made from a seed: the shapes and spellings that the trained example lacks.

mod config;
mod folder;
mod numbers;
mod specimen;
mod weights;

pub use folder::write;
pub use numbers::Numbers;
pub use specimen::{Family, Rope, Specimen, Spelling, specimens};
pub use weights::tensors;
