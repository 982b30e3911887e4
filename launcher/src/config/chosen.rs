//! A path that may be chosen in several places: by `qlaunch.toml` of the user or the project, a variable, a flag.

use std::path::Path;

use figment::Figment;
use qlaunch_shared::{Error, Result};

use super::Surroundings;
use super::layer::Layer;

/// A path as it was written, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// What was written, taken from the project's folder.
    pub path: String,
    /// Where it was written.
    pub origin: String,
}

/// What the places say of a key, the strongest last: `qlaunch.toml`, the variable, the flag.
///
/// # Errors
/// Settings that cannot be read, or a value that is no text.
pub fn chosen(
    key: &str,
    variable: &str,
    flag: Option<(&str, &Path)>,
    around: &Surroundings,
) -> Result<Option<Chosen>> {
    let mut layers = Vec::new();
    let folders = [around.user.as_deref(), Some(around.project.as_path())];
    for folder in folders.into_iter().flatten() {
        layers.extend(Layer::file(&folder.join("qlaunch.toml"))?.filter(|layer| layer.has(key)));
    }
    // An empty variable is how a shell unsets one for a single command.
    if let Some(path) = around.variables.get(variable).filter(|path| !path.is_empty()) {
        let origin = format!("the environment variable {variable}");
        layers.push(Layer::empty(origin).with(key, path.as_str()));
    }
    if let Some((flag, path)) = flag {
        layers.push(Layer::empty(format!("`{flag}`")).with(key, path.display().to_string()));
    }
    let figment = layers.into_iter().fold(Figment::new(), Figment::merge);
    let Ok(value) = figment.find_value(key) else {
        return Ok(None);
    };
    let origin = figment.find_metadata(key).map_or_else(String::new, |metadata| metadata.name.to_string());
    match value.as_str() {
        Some(path) => Ok(Some(Chosen { path: path.to_owned(), origin })),
        None => Err(Error::input(format!("`{key}` is a path"))
            .at(origin)
            .key(key)
            .hint(format!("write `{key} = \"path/to/{key}\"`"))),
    }
}
