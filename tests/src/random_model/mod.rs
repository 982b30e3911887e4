//! Small random models of every family, made from a seed: the shapes and spellings that the trained example lacks.

mod config;
mod experts;
mod folder;
mod numbers;
mod specimen;
mod weights;

pub use folder::{write, write_wide};
pub use numbers::Numbers;
pub use specimen::{Family, Mixture, Rope, Specimen, Spelling, Storage, specimens};
pub use weights::tensors;
