//! From trees to Rust types, with errors that name file, line, column and key and suggest the word that was meant.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path as KeyPath, Segment};

use super::document::Document;
use super::node::Node;
use super::scalar::{self, Floats};
use super::suggest::did_you_mean;
use crate::{Error, Result};

/// Reads a document as a type; use `#[serde(deny_unknown_fields)]` on it, so that typing errors are found.
///
/// # Errors
/// A key or value that the type does not know, with its place and a hint; the file is named as given here.
pub fn from_document<T: DeserializeOwned>(document: &Document, file: impl AsRef<Path>) -> Result<T> {
    from_node(document.root()).map_err(|error| error.at(file))
}

/// Reads a node as a type.
///
/// # Errors
/// A key or value that the type does not know, with its place and a hint.
pub fn from_node<T: DeserializeOwned>(node: &Node) -> Result<T> {
    serde_path_to_error::deserialize(node.to_value()).map_err(|error| {
        let steps = steps(error.path());
        explain(&error.into_inner().to_string(), node, &steps)
    })
}

fn steps(path: &KeyPath) -> Vec<String> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            // Variants of enums stand in the Rust types only, not in the file.
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// Turns serde's sentence into ours, at the deepest node that the path reaches.
fn explain(reason: &str, root: &Node, steps: &[String]) -> Error {
    let mut node = root;
    let mut reached = Vec::new();
    for step in steps {
        let Some(child) = node.child(step) else { break };
        node = child;
        reached.push(step.as_str());
    }
    let words = backticked(reason);
    match words.split_first() {
        Some((&unknown, known)) if reason.starts_with("unknown field") => {
            unknown_key(root, steps, unknown, known)
        }
        Some((&unknown, known)) if reason.starts_with("unknown variant") => {
            let refusal = node.mark.refuse(format!("unknown value `{unknown}`")).key(reached.join("."));
            refusal.hint(did_you_mean(unknown, known))
        }
        Some((&missing, _)) if reason.starts_with("missing field") => {
            reached.push(missing);
            let refusal = node.mark.refuse(format!("`{missing}` is missing")).key(reached.join("."));
            refusal.hint(format!("add `{missing}:` here"))
        }
        _ => {
            let refusal = node.mark.refuse(reason).key(reached.join("."));
            match node.text().filter(|text| is_float_elsewhere(text)) {
                Some(text) => refusal.hint(format!(
                    "`{text}` is text to YAML 1.1: write a float with a dot and a signed exponent, like `1.0e-3`"
                )),
                None => match reason.split_once(", expected ") {
                    Some((_, expected)) => refusal.hint(format!("write {expected} here")),
                    None => refusal,
                },
            }
        }
    }
}

/// The error for a key that is not known, at the key itself.
fn unknown_key(root: &Node, steps: &[String], unknown: &str, known: &[&str]) -> Error {
    let mut parent = root;
    let mut path = Vec::new();
    for step in steps.iter().filter(|step| *step != unknown) {
        let Some(child) = parent.child(step) else { break };
        parent = child;
        path.push(step.as_str());
    }
    path.push(unknown);
    let mark =
        parent.mapping().and_then(|mapping| mapping.entry(unknown)).map_or(&parent.mark, |entry| &entry.mark);
    let refusal = mark.refuse(format!("unknown key `{unknown}`")).key(path.join("."));
    refusal.hint(did_you_mean(unknown, known))
}

fn is_float_elsewhere(text: &str) -> bool {
    !scalar::is_float(text, Floats::PyYaml) && scalar::is_float(text, Floats::OmegaConf)
}

/// The words between backticks in serde's message.
fn backticked(reason: &str) -> Vec<&str> {
    reason.split('`').skip(1).step_by(2).collect()
}
