//! One YAML document of a file, with places to look up.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::node::{Node, Source};
use super::parse;
use super::scalar::Floats;
use crate::{Error, Result};

/// One YAML document: a tree in which every node knows its line and column.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    root: Node,
}

impl Document {
    /// Parses a text that must hold exactly one document.
    ///
    /// # Errors
    /// Anything that is not one YAML document within the bounds, with file, line and column.
    pub fn parse(text: &str, file: impl AsRef<Path>) -> Result<Self> {
        let source = Arc::new(Source { file: file.as_ref().to_path_buf(), library: false });
        let mut documents = Self::parse_all(text, source)?;
        match (documents.pop(), documents.pop()) {
            (Some(document), None) => Ok(document),
            (None, _) => Err(Error::input("the file is empty").at(file)),
            (Some(second), Some(_)) => {
                let refusal =
                    second.root.mark.refuse("a second document starts here, expected a single document");
                Err(refusal.hint("remove the `---` line, or keep one document per file"))
            }
        }
    }

    /// Parses all documents of a text.
    ///
    /// # Errors
    /// Anything that is not YAML within the bounds, with file, line and column.
    pub fn parse_all(text: &str, source: Arc<Source>) -> Result<Vec<Self>> {
        let roots = parse::documents(text, source, Floats::PyYaml)?;
        Ok(roots.into_iter().map(|root| Self { root }).collect())
    }

    /// Parses one value of an `a.b=value` override, with OmegaConf's floats.
    ///
    /// # Errors
    /// A value that is not a single YAML document.
    pub fn parse_override(text: &str, source: Arc<Source>) -> Result<Node> {
        let file = source.file.clone();
        let mut roots = parse::documents(text, Arc::clone(&source), Floats::OmegaConf)?;
        match (roots.pop(), roots.pop()) {
            (Some(root), None) => Ok(root),
            (None, _) => Ok(parse::null(source)),
            (Some(_), Some(_)) => Err(Error::input("an override holds a single value").at(file)),
        }
    }

    /// The tree.
    pub const fn root(&self) -> &Node {
        &self.root
    }

    /// The tree, given away.
    pub fn into_root(self) -> Node {
        self.root
    }

    /// The tree without places.
    pub fn value(&self) -> Value {
        self.root.to_value()
    }

    /// Line and column of the node under a dotted path (`quantize.quant_cfg.0.cfg`), counted from 1.
    pub fn position(&self, path: &str) -> Option<(usize, usize)> {
        let mut node = &self.root;
        for step in path.split('.').filter(|step| !step.is_empty()) {
            node = node.child(step)?;
        }
        Some((node.mark.line, node.mark.column))
    }
}

/// The comments before the first line of content, with their line numbers; blank lines are skipped.
pub fn leading_comments(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty())
        .take_while(|(_, line)| line.starts_with('#'))
}
