//! Examining a file for a person who writes it: everything that is wrong, and where each part stands.

use super::body::Recipe;
use super::definition::Kind;
use super::imports::Resolver;
use super::library::{Library, Location};
use super::load::{Draft, draft, find, with_remedy};
use super::names::Renamed;
use super::raw::RawFile;
use super::read;
use super::schema::Schema;
use crate::yaml::{Mark, Node};
use crate::{Error, Result};

/// A file, and everything that a reader found in it.
#[derive(Debug)]
pub struct Examination {
    /// Its name in the library, or its path.
    pub name: String,
    /// What it defines; unknown where too much is wrong.
    pub kind: Option<Kind>,
    /// The recipe or preset, if nothing is wrong with it.
    pub recipe: Option<Recipe>,
    /// What is wrong, by file and line, each with a remedy.
    pub errors: Vec<Error>,
    /// What can be read, but should be written otherwise: old spellings, contradictions.
    pub warnings: Vec<String>,
    /// The name it goes by here, if it was asked for by another.
    pub renamed: Option<Renamed>,
    root: Option<Node>,
}

impl Examination {
    /// Puts an error at the part that a dotted key names, as in `quantize.quant_cfg.3`; at what holds it if need be.
    #[must_use]
    pub fn locate(&self, error: Error, key: &str) -> Error {
        match self.mark(key) {
            Some(mark) => mark.locate(error).key(key),
            None => error.key(key),
        }
    }

    /// Path and line of the part that a dotted key names, or of what holds it.
    pub fn mark(&self, key: &str) -> Option<&Mark> {
        let mut node = self.root.as_ref()?;
        for step in key.split('.') {
            let Some(child) = node.child(step) else { break };
            node = child;
        }
        Some(&node.mark)
    }
}

/// Reads a recipe, preset, snippet or folder to its end, whatever is wrong with it.
///
/// # Errors
/// There is no such file.
pub fn examine(library: &Library, name_or_path: &str) -> Result<Examination> {
    let (location, renamed) = find(library, name_or_path)?;
    let (kind, Draft { node, recipe, faults }) = read_to_the_end(library, &location);
    let mut errors: Vec<Error> = faults.into_list().into_iter().map(with_remedy).collect();
    errors.sort_by_key(|error| (error.place.file.clone(), error.place.line, error.place.column));
    let warnings = recipe.iter().flat_map(|recipe| recipe.notes.iter().cloned()).collect();
    let recipe = recipe.filter(|_| errors.is_empty());
    Ok(Examination { name: location.name(), kind, recipe, errors, warnings, renamed, root: node })
}

fn read_to_the_end(library: &Library, location: &Location) -> (Option<Kind>, Draft) {
    if location.is_file() {
        let file = match RawFile::read(location) {
            Ok(file) => file,
            Err(error) => return (None, Draft::refused(error)),
        };
        let is_snippet = file.body.child("metadata").is_none()
            && file.body.child("quant_cfg").is_none()
            && file.schema.is_some_and(|schema| !matches!(schema, Schema::Config | Schema::Recipe(_)));
        if is_snippet {
            return (Some(Kind::Snippet), snippet(library, file));
        }
    }
    let draft = draft(library, location, &[]);
    (draft.recipe.as_ref().map(Kind::of), draft)
}

fn snippet(library: &Library, file: RawFile) -> Draft {
    let schema = file.schema.unwrap_or(Schema::Any);
    let (node, mut faults) = Resolver::new(library).partly(file, schema, &[]);
    if let Some(node) = &node {
        faults.keep(read::check(node, schema));
    }
    Draft { node, faults, recipe: None }
}
