//! The one way to read YAML: parsed as PyYAML's safe loader does, every node with its place, hostile input refused.

mod document;
mod node;
mod parse;
mod scalar;
mod suggest;
mod typed;

pub use document::{Document, leading_comments};
pub use node::{Content, Entry, Mapping, Mark, Node, Source};
pub use parse::{MAX_BYTES, MAX_COST, MAX_DEPTH};
pub use scalar::Floats;
pub use suggest::{closest, did_you_mean};
pub use typed::{from_document, from_node};

#[cfg(test)]
mod parse_tests;
#[cfg(test)]
mod scalar_tests;
#[cfg(test)]
mod typed_tests;
