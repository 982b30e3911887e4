//! Keys of artifacts: hashes of what they are made from.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::sha256;
use crate::{Error, Result};

/// A step of the work whose results are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Token ids of a text, made by a model's tokenizer.
    Tokens,
    /// What calibration learnt of one layer's inputs.
    Statistics,
    /// Hidden states behind one layer, for the next one to go on from.
    Hidden,
    /// The tensors of one layer, or of all that stands outside of layers, quantized and as they are written.
    Layer,
    /// Final hidden states of the unquantized model on evaluation data.
    Reference,
    /// What was measured of a model or checkpoint.
    Evaluation,
    /// A file beside the weights that checkpoints of one model have in common.
    Companion,
}

impl Step {
    /// The version of the code that takes the step. It is raised by hand when the bytes that the step makes change; a
    /// golden fails when they change without that.
    pub const fn code(self) -> u32 {
        match self {
            // 2: AWQ's losses are bf16 off the diagonal, GPTQ's factor is made in tiles.
            Self::Layer => 2,
            Self::Tokens
            | Self::Statistics
            | Self::Hidden
            | Self::Reference
            | Self::Evaluation
            | Self::Companion => 1,
        }
    }

    /// The word for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Statistics => "statistics",
            Self::Hidden => "hidden states",
            Self::Layer => "layer",
            Self::Reference => "reference",
            Self::Evaluation => "evaluation",
            Self::Companion => "companion",
        }
    }
}

/// Everything that an artifact is made from. Two artifacts of the same origin have the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The step that makes it.
    pub step: Step,
    /// The version of that step's code.
    pub code: u32,
    /// What goes in, by name: digests of tensors and of other artifacts, settings in their canonical spelling.
    pub inputs: BTreeMap<String, String>,
}

impl Origin {
    /// The origin of what this program's code makes from the inputs.
    pub fn new<N: Into<String>, V: Into<String>>(
        step: Step,
        inputs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let inputs = inputs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { step, code: step.code(), inputs }
    }

    /// The key: the hash of all of it, each part with its length so that no two origins read the same.
    pub fn key(&self) -> Key {
        let mut text = format!("qlaunch artifact\n{}\n{}\n", self.step.name(), self.code);
        for (name, value) in &self.inputs {
            text.push_str(&format!("{} {name} {} {value}\n", name.len(), value.len()));
        }
        Key(sha256(text))
    }

    /// Names of inputs in which this origin differs from another one, and of those that only one has.
    pub fn differences<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let mut names: Vec<&str> = self
            .inputs
            .iter()
            .filter(|(name, value)| other.inputs.get(*name) != Some(value))
            .map(|(name, _)| name.as_str())
            .chain(other.inputs.keys().filter(|name| !self.inputs.contains_key(*name)).map(String::as_str))
            .collect();
        names.sort_unstable();
        if self.code != other.code {
            names.push("code version");
        }
        names
    }
}

/// The name of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(String);

impl Key {
    /// Its 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first digits, enough for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_key = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_key {
            return Err(Error::input(format!(
                "`{text}` is no key of an artifact: those have 64 hexadecimal digits"
            ))
            .hint("`qlaunch store ls` lists them"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Key {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin(inputs: &[(&str, &str)]) -> Origin {
        Origin::new(Step::Layer, inputs.iter().copied())
    }

    #[test]
    fn order_does_not_matter_and_everything_else_does() {
        let key = origin(&[("a", "1"), ("b", "2")]).key();
        assert_eq!(origin(&[("b", "2"), ("a", "1")]).key(), key);
        for other in [&[("a", "1"), ("b", "3")][..], &[("a", "1")], &[("a", "1"), ("b", "2"), ("c", "")]] {
            assert_ne!(origin(other).key(), key);
        }
        let later = Origin { code: Step::Layer.code() + 1, ..origin(&[("a", "1"), ("b", "2")]) };
        assert_ne!(later.key(), key);
        let other = Origin { step: Step::Statistics, ..origin(&[("a", "1"), ("b", "2")]) };
        assert_ne!(other.key(), key);
    }

    // A store outlives the program: keys of version 1 stay what they are.
    #[test]
    fn keys_never_change() {
        let key = Origin { code: 1, ..origin(&[("layer", "3"), ("recipe", "fp8")]) }.key();
        assert_eq!(key.as_str(), "d8e48f19da455ac81d1d43e409460a6d7f6df660683b61dda90148a8725cb661");
    }

    #[test]
    fn differences_are_named() {
        let old = origin(&[("recipe", "fp8"), ("weights", "w"), ("old", "x")]);
        let new = Origin {
            code: Step::Layer.code() + 1,
            ..origin(&[("recipe", "nvfp4"), ("weights", "w"), ("statistics", "s")])
        };
        assert_eq!(new.differences(&old), ["old", "recipe", "statistics", "code version"]);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "abc", &"A".repeat(64), &"g".repeat(64), &"../".repeat(22)] {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
        assert!("0".repeat(64).parse::<Key>().is_ok());
    }

    proptest! {
        #[test]
        fn two_origins_with_one_key_are_the_same(
            a in proptest::collection::btree_map("[a-c0-9 \n]{0,3}", "[a-c0-9 \n]{0,3}", 0..4),
            b in proptest::collection::btree_map("[a-c0-9 \n]{0,3}", "[a-c0-9 \n]{0,3}", 0..4),
        ) {
            let (a, b) = (Origin::new(Step::Layer, a), Origin::new(Step::Layer, b));
            prop_assert_eq!(a == b, a.key() == b.key());
        }
    }
}
