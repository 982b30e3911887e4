//! Loading a recipe by name or path: files, folders, presets, old names and overrides.

use std::path::PathBuf;

use super::body::{Body, Form, Metadata, Origin, Recipe, RecipeType};
use super::imports::Resolver;
use super::library::{Library, Location};
use super::names::{Renamed, find_renamed};
use super::overrides;
use super::raw::RawFile;
use super::read::{Reader, mapping, within};
use super::schema::Schema;
use super::sections;
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
    let mut recipe = if location.is_file() {
        from_file(library, &location, overrides)?
    } else if overrides.is_empty() {
        from_folder(library, &location)?
    } else {
        return Err(Error::usage("overrides are for recipes in a single file, and this one is a folder")
            .at(location.path())
            .hint("change its files, or put the recipe into one file"));
    };
    recipe.notes.splice(0..0, renamed.map(|renamed| renamed.to_string()));
    Ok(recipe)
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

fn from_file(library: &Library, location: &Location, overrides: &[String]) -> Result<Recipe> {
    let file = RawFile::read(location)?;
    let (schema, form) = kind(&file)?;
    let node = overrides::apply(Resolver::new(library).resolve(file, schema)?, overrides)?;
    let mut reader = Reader::default();
    let (metadata, body) = match form {
        Form::Recipe => sections::recipe(&node, &mut reader)?,
        Form::Preset => {
            let metadata = Metadata { recipe_type: RecipeType::Ptq, description: None };
            (metadata, Body::Quantize(reader.config(&node)?))
        }
    };
    Ok(Recipe { name: location.name(), origin: origin(location), form, metadata, body, notes: reader.notes })
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
fn from_folder(library: &Library, folder: &Location) -> Result<Recipe> {
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
            .hint("put this recipe into a single file"));
    }
    let body = RawFile::read(&part("quantize")?)?;
    let node = resolver.resolve_with(body, Schema::Config, &names)?;
    let mut reader = Reader::default();
    let body = Body::Quantize(reader.config(&node)?);
    let form = Form::Recipe;
    Ok(Recipe { name: folder.name(), origin: origin(folder), form, metadata, body, notes: reader.notes })
}

/// The metadata of a folder: the whole file, or its `metadata` section.
fn folder_metadata(head: &Node) -> Result<Metadata> {
    match mapping(head, "recipe metadata")?.get("metadata") {
        Some(section) => from_node(section).map_err(|error| within(error, "metadata")),
        None if head.child("recipe_type").is_none() => Err(sections::missing_type(head)),
        None => from_node(head),
    }
}

fn origin(location: &Location) -> Origin {
    match location {
        Location::Embedded(_) => Origin::BuiltIn,
        Location::Folder { path, .. } => Origin::Library(path.clone()),
        Location::Disk(path) => Origin::Own(PathBuf::from(path)),
    }
}
