//! Everything that a library defines, recipes and their building blocks alike, for listing and showing.

use serde_json::Value;

use super::body::{Form, Recipe, RecipeType, plain};
use super::faults::{Checked, Faults};
use super::imports::Resolver;
use super::library::Library;
use super::load::{find, load_recipe, with_remedy};
use super::raw::RawFile;
use super::read::{self, Reader};
use super::schema::Schema;
use crate::yaml::Node;
use crate::{Error, Result};

/// A file of a library or of somebody's own, resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Its name in the library without suffix, or its path.
    pub name: String,
    /// What it defines.
    pub kind: Kind,
    /// Its content: imports in place, keys sorted, explicitly written fields only, tuples as lists.
    pub content: Value,
    /// What a person should know about how it was read.
    pub notes: Vec<String>,
}

/// What a file defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A recipe.
    Recipe(RecipeType),
    /// A quantizer configuration that can be used as a recipe.
    Preset,
    /// A piece of a recipe, to be imported.
    Snippet,
    /// A configuration of another kind, which is only shown.
    Configuration,
}

impl Kind {
    /// What a recipe is.
    pub(super) const fn of(recipe: &Recipe) -> Self {
        match recipe.form {
            Form::Recipe => Self::Recipe(recipe.metadata.recipe_type),
            Form::Preset => Self::Preset,
        }
    }

    /// A word for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recipe(recipe_type) => recipe_type.name(),
            Self::Preset => "preset",
            Self::Snippet => "snippet",
            Self::Configuration => "configuration",
        }
    }
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// Name in the library.
    pub name: String,
    /// What it defines, or what is wrong with it.
    pub definition: Result<Definition>,
}

impl Listing {
    /// What it is for; empty where the file does not say.
    pub fn description(&self) -> &str {
        let content = self.definition.as_ref().ok().map(|definition| &definition.content);
        let description = content.and_then(|content| content.pointer("/metadata/description"));
        description.and_then(Value::as_str).unwrap_or_default().trim()
    }
}

/// Resolves any file: recipe, preset, snippet or configuration.
///
/// # Errors
/// No such file, or anything wrong in it.
pub fn define(library: &Library, name_or_path: &str) -> Result<Definition> {
    resolved(library, name_or_path).map_err(with_remedy)
}

fn resolved(library: &Library, name_or_path: &str) -> Result<Definition> {
    let (location, renamed) = find(library, name_or_path)?;
    if !location.is_file() {
        return recipe(library, name_or_path);
    }
    let file = RawFile::read(&location)?;
    let is_recipe = file.body.child("metadata").is_some();
    let is_preset = file.schema == Some(Schema::Config) || file.body.child("quant_cfg").is_some();
    if is_recipe || is_preset {
        return recipe(library, name_or_path);
    }
    let schema = file.schema.unwrap_or(Schema::Any);
    let kind = if file.schema.is_some() { Kind::Snippet } else { Kind::Configuration };
    let node = Resolver::new(library).resolve(file, schema).map_err(Faults::first)?;
    let content = plain(content(&node, schema).map_err(Faults::first)?);
    let notes = renamed.map(|renamed| renamed.to_string()).into_iter().collect();
    Ok(Definition { name: location.name(), kind, content, notes })
}

fn recipe(library: &Library, name_or_path: &str) -> Result<Definition> {
    let recipe = load_recipe(library, name_or_path, &[])?;
    let kind = Kind::of(&recipe);
    Ok(Definition { content: recipe.resolved_json()?, name: recipe.name, kind, notes: recipe.notes })
}

/// A snippet as its type prints it.
fn content(node: &Node, schema: Schema) -> Checked<Value> {
    let printed = match schema {
        Schema::Attributes => serde_json::to_value(read::attributes(node)?),
        Schema::Entry => serde_json::to_value(Reader::default().entry(node)?),
        Schema::Entries => serde_json::to_value(Reader::default().entries(node)?),
        _ => {
            read::check(node, schema)?;
            Ok(node.to_value())
        }
    };
    Ok(printed.map_err(|error| Error::bug(format!("a snippet did not become JSON: {error}")))?)
}

/// All recipes, presets and building blocks of a library, sorted by name; a broken file with what is wrong with it.
pub fn list(library: &Library) -> Vec<Listing> {
    let listing = |name: String| Listing { definition: define(library, &name), name };
    library.names().into_iter().map(listing).collect()
}
