//! Pieces of a checkpoint: a file or a few each, so that checkpoints which have a piece in common can share its files.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ModuleTensors;
use crate::model::{Model, Module, ModuleRole};
use crate::{Error, Result};

/// A part of a checkpoint that is made, kept and shared as one; files spell it `embedding`, `layer 3` or `output head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Piece {
    /// The embedding, and tensors that no module owns.
    First,
    /// A decoder layer, from 0.
    Layer(usize),
    /// The final norm and the output head.
    Last,
}

impl Piece {
    /// The piece that tensors are of.
    pub fn of(own: &ModuleTensors, model: &Model) -> Self {
        own.module.map_or(Self::First, |module| Self::of_module(&model.modules[module]))
    }

    /// The piece that a module is of.
    pub const fn of_module(module: &Module) -> Self {
        match (module.layer, module.role) {
            (Some(layer), _) => Self::Layer(layer),
            (None, ModuleRole::Embedding { .. }) => Self::First,
            (None, _) => Self::Last,
        }
    }

    /// All pieces of a model with so many layers, in order.
    pub fn all(layers: usize) -> impl Iterator<Item = Self> {
        [Self::First].into_iter().chain((0..layers).map(Self::Layer)).chain([Self::Last])
    }

    /// Its place among all pieces of a model with so many layers, which is the group of its files.
    pub const fn group(self, layers: usize) -> usize {
        match self {
            Self::First => 0,
            Self::Layer(layer) => layer + 1,
            Self::Last => layers + 1,
        }
    }

    /// The decoder layer, where it is one.
    pub const fn layer(self) -> Option<usize> {
        match self {
            Self::Layer(layer) => Some(layer),
            Self::First | Self::Last => None,
        }
    }

    /// The piece that a tensor of the source is of, by its name; of those outside of layers, `First` stands for all.
    pub fn of_source(name: &str) -> Self {
        let mut parts = name.split('.');
        let layer = parts.by_ref().find(|&part| part == "layers").and_then(|_| parts.next()?.parse().ok());
        layer.map_or(Self::First, Self::Layer)
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("embedding"),
            Self::Layer(layer) => write!(f, "layer {layer}"),
            Self::Last => f.write_str("output head"),
        }
    }
}

impl FromStr for Piece {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "embedding" => Ok(Self::First),
            "output head" => Ok(Self::Last),
            _ => text
                .strip_prefix("layer ")
                .and_then(|layer| layer.parse().ok())
                .map(Self::Layer)
                .ok_or_else(|| Error::input(format!("`{text}` is no piece of a checkpoint"))),
        }
    }
}

impl TryFrom<String> for Piece {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Piece> for String {
    fn from(piece: Piece) -> Self {
        piece.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_of_a_piece_is_read_again() {
        for (group, piece) in Piece::all(3).enumerate() {
            assert_eq!(piece.group(3), group);
            assert_eq!(piece.to_string().parse::<Piece>().unwrap(), piece);
        }
        assert!("layer".parse::<Piece>().is_err() && "layer x".parse::<Piece>().is_err());
    }

    #[test]
    fn source_tensors_are_of_the_layer_that_their_name_says() {
        let layer = |name: &str| Piece::of_source(name);
        assert_eq!(layer("model.layers.12.self_attn.q_proj.weight"), Piece::Layer(12));
        assert_eq!(layer("model.language_model.layers.0.mlp.experts.gate_up_proj"), Piece::Layer(0));
        for name in ["model.embed_tokens.weight", "lm_head.weight", "model.layers", "a.layers.x.b"] {
            assert_eq!(layer(name), Piece::First, "{name}");
        }
    }
}
