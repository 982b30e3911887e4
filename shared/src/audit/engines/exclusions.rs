//! The names and patterns that a declaration excludes, ready to be asked about every linear of a large model.
//!
//! Most are whole names, one for each layer; those are looked up. Only what has wildcards is matched one by one.

use std::collections::HashMap;

use crate::recipe::Pattern;

/// What is excluded from quantization.
#[derive(Debug, Clone, Default)]
pub(super) struct Exclusions {
    /// All entries as they are written.
    written: Vec<String>,
    /// Each entry, and whether it stands for itself only.
    names: HashMap<String, bool, foldhash::fast::RandomState>,
    globs: Vec<Pattern>,
}

impl Exclusions {
    pub(super) fn new(entries: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let written: Vec<String> = entries.into_iter().map(Into::into).collect();
        let mut own = Self::default();
        for entry in &written {
            let pattern = Pattern::new(entry);
            let is_literal = pattern.literal().is_some();
            own.names.insert(entry.clone(), is_literal);
            if !is_literal {
                own.globs.push(pattern);
            }
        }
        Self { written, ..own }
    }

    /// The entries as they are written.
    pub(super) fn written(&self) -> impl Iterator<Item = &str> {
        self.written.iter().map(String::as_str)
    }

    /// Whether an entry is the name itself.
    pub(super) fn names(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Whether an entry is the name itself, or a pattern that fits it.
    pub(super) fn fit(&self, name: &str) -> bool {
        // An entry with brackets need not fit itself.
        self.names.get(name) == Some(&true) || self.globs.iter().any(|glob| glob.matches(name))
    }

    /// Whether an entry is the name, or whole parts of it between dots that follow each other.
    pub(super) fn lie_within(&self, name: &str) -> bool {
        let dots = || name.match_indices('.').map(|(at, _)| at);
        let starts = || std::iter::once(0).chain(dots().map(|at| at + 1));
        let ends = || dots().chain([name.len()]);
        starts().any(|start| ends().any(|end| start <= end && self.names(&name[start..end])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_patterns_and_parts_of_names_are_told_apart() {
        let own = Exclusions::new(["lm_head", "model.layers.1", "*router*", "a[b]"]);
        assert!(own.names("lm_head") && own.names("*router*") && !own.names("model"));
        assert!(own.fit("lm_head") && own.fit("x.router.y") && own.fit("ab"));
        assert!(!own.fit("a[b]") && !own.fit("model.layers.1.mlp"));
        assert!(own.lie_within("model.layers.1.mlp") && own.lie_within("x.lm_head"));
        assert!(!own.lie_within("model.layers.11.mlp") && !own.lie_within("model.layers"));
    }
}
