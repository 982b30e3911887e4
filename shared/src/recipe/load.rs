//! Loading a recipe by name or path: files, folders, presets, old names and overrides.

use std::path::PathBuf;

use super::body::{Body, Form, Metadata, Origin, Recipe, RecipeType};
use super::faults::{Checked, Faults, within};
use super::imports::Resolver;
use super::library::{Library, Location};
use super::names::{Renamed, find_renamed};
use super::overrides;
use super::raw::RawFile;
use super::read::{Reader, mapping};
use super::schema::Schema;
use super::sections;
use super::typed::typed;
use crate::yaml::{Node, closest, from_node};
use crate::{Error, Result};

/// Loads a recipe: a name of the library, a file, a folder, a preset or its bare name, today's or an older one.
///
/// # Errors
/// No such recipe, or anything wrong in its files; the error names file, line, key and remedy.
pub fn load_recipe(library: &Library, name_or_path: &str, overrides: &[String]) -> Result<Recipe> {
    load(library, name_or_path, overrides).map_err(with_remedy)
}

/// Where nothing better is known, a recipe that works is the remedy.
pub(super) fn with_remedy(error: Error) -> Error {
    match error.hint {
        Some(_) => error,
        None => error.hint("compare `qlaunch recipe show general/ptq/nvfp4_default-kv_fp8`, which works"),
    }
}

fn load(library: &Library, name_or_path: &str, overrides: &[String]) -> Result<Recipe> {
    let (location, renamed) = find(library, name_or_path)?;
    let Draft { recipe, faults, .. } = draft(library, &location, overrides);
    let mut recipe = faults
        .unless_any(recipe)
        .map_err(Faults::first)?
        .ok_or_else(|| Error::bug("no recipe, and no fault"))?;
    recipe.notes.splice(0..0, renamed.map(|renamed| renamed.to_string()));
    Ok(recipe)
}

/// A recipe as far as it could be read, and everything that is wrong with it.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// The tree with everything imported in place; list elements that could not be resolved are left out.
    pub node: Option<Node>,
    /// The recipe; if there are faults, what is left of it.
    pub recipe: Option<Recipe>,
    /// What is wrong.
    pub faults: Faults,
}

impl Draft {
    /// A draft that did not get far.
    pub fn refused(faults: impl Into<Faults>) -> Self {
        Self { faults: faults.into(), ..Self::default() }
    }

    /// Reads the tree, so that what is wrong there is known too.
    fn read<T>(&mut self, read: impl FnOnce(&Node) -> Checked<T>) -> Option<T> {
        let node = self.node.as_ref()?;
        let outcome = read(node);
        self.faults.keep(outcome)
    }
}

/// Reads the recipe at a location as far as possible.
pub(super) fn draft(library: &Library, location: &Location, overrides: &[String]) -> Draft {
    if location.is_file() {
        return from_file(library, location, overrides).unwrap_or_else(Draft::refused);
    }
    if overrides.is_empty() {
        return from_folder(library, location).unwrap_or_else(Draft::refused);
    }
    Draft::refused(
        Error::usage("overrides are for recipes in a single file, and this one is a folder")
            .at(location.path())
            .hint("change its files, or put the recipe into one file"),
    )
}

/// Finds what a name or path means, and says if it goes by another name.
///
/// # Errors
/// Nothing has that name; the closest that does is suggested.
pub(super) fn find(library: &Library, asked: &str) -> Result<(Location, Option<Renamed>)> {
    if let Some(location) = library.find_recipe(asked) {
        return Ok((location, None));
    }
    if let Some(location) = find_renamed(library, asked) {
        let renamed = Renamed { asked: asked.to_owned(), found: location.name() };
        return Ok((location, Some(renamed)));
    }
    let names = library.names();
    let base = |name: &str| name.rsplit('/').next().map(str::to_owned);
    let similar = closest(asked, names.iter().map(String::as_str)).map(str::to_owned).or_else(|| {
        let asked = base(asked)?;
        let bases: Vec<String> = names.iter().filter_map(|name| base(name)).collect();
        let found = closest(&asked, bases.iter().map(String::as_str))?;
        names.iter().find(|name| base(name).as_deref() == Some(found)).cloned()
    });
    let hint = match similar {
        Some(name) => format!("did you mean `{name}`? `qlaunch recipe list` shows all"),
        None => {
            "`qlaunch recipe list` shows the recipes; a path names a file or folder of your own".to_owned()
        }
    };
    Err(Error::input(format!("there is no recipe `{asked}`")).hint(hint))
}

fn from_file(library: &Library, location: &Location, overrides: &[String]) -> Result<Draft> {
    let file = RawFile::read(location)?;
    let (schema, form) = kind(&file)?;
    let (node, faults) = Resolver::new(library).partly(file, schema, &[]);
    let node = node.map(|node| overrides::apply(node, overrides)).transpose()?;
    let mut draft = Draft { node, faults, recipe: None };
    let mut reader = Reader::default();
    let parts = match form {
        Form::Recipe => draft.read(|node| sections::recipe(node, &mut reader)),
        Form::Preset => draft.read(|node| {
            let metadata = Metadata { recipe_type: RecipeType::Ptq, description: None };
            Ok((metadata, Body::Quantize(reader.config(node)?)))
        }),
    };
    let whole = |(metadata, body)| {
        let (name, origin) = (location.name(), origin(location));
        Recipe { name, origin, form, metadata, body, notes: reader.notes }
    };
    draft.recipe = parts.map(whole);
    Ok(draft)
}

/// What sort of recipe a file holds, told before its imports are looked at.
fn kind(file: &RawFile) -> Result<(Schema, Form)> {
    let body = &file.body;
    let metadata = body.child("metadata");
    if metadata.is_none() && (file.schema == Some(Schema::Config) || body.child("quant_cfg").is_some()) {
        return Ok((Schema::Config, Form::Preset));
    }
    if let Some(schema) = file.schema.filter(|schema| !matches!(schema, Schema::Recipe(_))) {
        return Err(body
            .mark
            .refuse(format!("this file is a snippet ({}), to be imported by recipes", schema.words()))
            .hint("`qlaunch recipe show` shows snippets; `qlaunch recipe list` shows recipes"));
    }
    let Some(recipe_type) = metadata.and_then(|metadata| metadata.child("recipe_type")) else {
        return Err(sections::missing_type(body));
    };
    let recipe_type: RecipeType =
        from_node(recipe_type).map_err(|error| within(within(error, "recipe_type"), "metadata"))?;
    if file.documents > 1 {
        return Err(body
            .mark
            .refuse("a recipe is a single YAML document: expected a single document")
            .hint("remove the `---` line between imports and recipe; only snippets have two documents"));
    }
    sections::required(body, recipe_type)?;
    Ok((Schema::Recipe(recipe_type), Form::Recipe))
}

/// `metadata.yml` or `recipe.yml`, and `quantize.yml`; names imported by the first are known in the second.
fn from_folder(library: &Library, folder: &Location) -> Result<Draft, Faults> {
    let part = |base: &str| {
        folder.part(base).ok_or_else(|| {
            Error::input(format!("a recipe folder needs a file `{base}.yml` or `{base}.yaml`"))
                .at(folder.path())
                .hint(format!("add `{base}.yaml`"))
        })
    };
    let head = RawFile::read(&folder.part("metadata").map_or_else(|| part("recipe"), Ok)?)?;
    let names = head.imports.clone();
    let mut resolver = Resolver::new(library);
    let head = resolver.resolve(head, Schema::Any)?;
    let metadata = folder_metadata(&head)?;
    if metadata.recipe_type != RecipeType::Ptq {
        return Err(head
            .mark
            .refuse(format!(
                "a recipe folder holds recipes of type `ptq`, not `{}`",
                metadata.recipe_type.name()
            ))
            .key("recipe_type")
            .hint("put this recipe into a single file")
            .into());
    }
    let (node, faults) = resolver.partly(RawFile::read(&part("quantize")?)?, Schema::Config, &names);
    let mut draft = Draft { node, faults, recipe: None };
    let mut reader = Reader::default();
    draft.recipe = draft.read(|node| reader.config(node)).map(|config| Recipe {
        name: folder.name(),
        origin: origin(folder),
        form: Form::Recipe,
        metadata,
        body: Body::Quantize(config),
        notes: reader.notes,
    });
    Ok(draft)
}

/// The metadata of a folder: the whole file, or its `metadata` section.
fn folder_metadata(head: &Node) -> Checked<Metadata> {
    match mapping(head, "recipe metadata")?.get("metadata") {
        Some(section) => typed(section).map_err(|faults| faults.within("metadata")),
        None if head.child("recipe_type").is_none() => Err(sections::missing_type(head).into()),
        None => typed(head),
    }
}

fn origin(location: &Location) -> Origin {
    match location {
        Location::Embedded(_) => Origin::BuiltIn,
        Location::Folder { path, .. } => Origin::Library(path.clone()),
        Location::Disk(path) => Origin::Own(PathBuf::from(path)),
    }
}
