//! Keys of what is measured: hidden states of evaluation tokens on their way through a model or checkpoint, and the figures.
//!
//! A checkpoint that was assembled from the store is known by the digests of its files, any other model by those of its
//! tensors; either way by what is declared beside them too, since that says how an engine computes with them.

use std::collections::BTreeMap;

use super::build::{first_states, next_states, source_digests};
use super::{Assembly, Origin, Step};
use crate::assign::Piece;
use crate::digest::sha256;
use crate::model::Model;
use crate::protocol::NumericPath;
use crate::{Error, Result};

/// A model or checkpoint that is run as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Hidden states before each layer, from the first, and behind the last.
    states: Vec<String>,
    /// Norm and output head.
    head: String,
}

impl Served {
    /// A model by the SHA-256 of each of its tensors, on tokens of this digest.
    ///
    /// # Errors
    /// A digest is missing.
    pub fn by_tensors(
        model: &Model,
        digests: &BTreeMap<String, String>,
        on: (&str, NumericPath),
    ) -> Result<Self> {
        Self::new(model, &source_digests(model, digests)?, on)
    }

    /// A checkpoint by what it was assembled from.
    ///
    /// # Errors
    /// What is declared beside the weights cannot be read.
    pub fn by_pieces(model: &Model, assembly: &Assembly, on: (&str, NumericPath)) -> Result<Self> {
        let digest = |files: &[super::Digested]| {
            sha256(files.iter().map(|file| file.sha256.as_str()).collect::<Vec<_>>().concat())
        };
        let pieces = assembly.pieces.iter().map(|piece| (piece.piece, digest(&piece.files))).collect();
        Self::new(model, &pieces, on)
    }

    fn new(model: &Model, pieces: &BTreeMap<Piece, String>, on: (&str, NumericPath)) -> Result<Self> {
        let of = |piece: Piece| pieces.get(&piece).map_or("", String::as_str);
        let first = first_states(model, of(Piece::First), on)?;
        let declared = model.folder.join("hf_quant_config.json");
        let mut states = vec![match std::fs::read(&declared) {
            Ok(declared) => next_states(&first, &sha256(declared)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => first,
            Err(error) => return Err(Error::io("read", &declared, &error)),
        }];
        for layer in 0..model.config.layers {
            states.push(next_states(&states[layer], of(Piece::Layer(layer))));
        }
        // A source's head is among the tensors outside of layers, a checkpoint's is a piece of its own.
        Ok(Self { states, head: of(Piece::Last).to_owned() })
    }

    /// Hidden states before each layer, and behind the last under the number of layers.
    pub fn hidden(&self) -> Vec<(usize, Origin)> {
        let origin = |states: &String| Origin::new(Step::Hidden, [("states", states.as_str())]);
        self.states.iter().map(origin).enumerate().collect()
    }

    fn end(&self) -> [(&'static str, &str); 2] {
        [("states", self.states.last().map_or("", String::as_str)), ("head", &self.head)]
    }

    /// Final hidden states, kept for others to be compared with.
    pub fn reference(&self) -> Origin {
        Origin::new(Step::Reference, self.end())
    }

    /// The figures; with what the divergence is measured from, if anything.
    pub fn evaluation(&self, reference: Option<&str>) -> Origin {
        let reference = reference.map(|reference| ("reference", reference));
        Origin::new(Step::Evaluation, self.end().into_iter().chain(reference))
    }
}
