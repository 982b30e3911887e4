//! Where recipes are found: the folder that was asked for, the project's, the user's, then the built-in ones.

use std::path::PathBuf;

use qlaunch_shared::recipe::Library;
use qlaunch_shared::{Error, Result};

use super::Surroundings;
use super::chosen::{Chosen, chosen as asked};

const KEY: &str = "recipes";
const VARIABLE: &str = "QLAUNCH_RECIPES";

/// The recipe library of these surroundings.
///
/// # Errors
/// A folder that was asked for is none, or settings that cannot be read.
pub fn library(around: &Surroundings) -> Result<Library> {
    let mut library = Library::embedded().working_in(&around.project);
    let folders = [around.user.as_deref(), Some(around.project.as_path())];
    for folder in folders.into_iter().flatten().map(|folder| folder.join("recipes")) {
        if folder.is_dir() {
            library = library.with_folder(folder);
        }
    }
    Ok(match chosen(around)? {
        Some(folder) => library.with_folder(folder),
        None => library,
    })
}

/// The folder of `--recipes`, of `QLAUNCH_RECIPES`, or of the key `recipes` in `qlaunch.toml`.
fn chosen(around: &Surroundings) -> Result<Option<PathBuf>> {
    let flag = around.recipes.as_deref().map(|folder| ("--recipes", folder));
    let Some(Chosen { path: folder, origin }) = asked(KEY, VARIABLE, flag, around)? else {
        return Ok(None);
    };
    let path = around.project.join(&folder);
    if path.is_dir() {
        return Ok(Some(path));
    }
    let what = if path.exists() { "is no folder" } else { "does not exist" };
    Err(Error::input(format!("the recipe folder `{folder}` {what}; it is set by {origin}"))
        .at(path)
        .key(KEY)
        .hint("set it to a folder of recipes, such as the `modelopt_recipes` of an installed ModelOpt, or unset it"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use qlaunch_shared::recipe::load_recipe;

    use super::*;

    const NAME: &str = "general/ptq/fp8_default-kv_fp8";

    /// A folder with a recipe that says which folder it is from.
    fn recipes(folder: &Path, word: &str) -> PathBuf {
        let path = folder.join(NAME).with_extension("yaml");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = format!(
            "metadata: {{recipe_type: ptq, description: {word}}}\nquantize: {{quant_cfg: [{{quantizer_name: a, enable: false}}]}}\n"
        );
        fs::write(path, text).unwrap();
        folder.to_owned()
    }

    fn from(around: &Surroundings) -> String {
        let recipe = load_recipe(&library(around).unwrap(), NAME, &[]).unwrap();
        recipe.metadata.description.unwrap()
    }

    #[test]
    fn the_flag_goes_before_the_variable_the_settings_and_the_projects_own_folder() {
        let work = tempfile::tempdir().unwrap();
        let at = |name: &str| work.path().join(name);
        let mut around =
            Surroundings { project: at("project"), user: Some(at("user")), ..Surroundings::default() };
        recipes(&at("user/recipes"), "user");
        assert_eq!(from(&around), "user");
        recipes(&at("project/recipes"), "project");
        assert_eq!(from(&around), "project");
        recipes(&at("set"), "set");
        fs::write(at("project/qlaunch.toml"), "recipes = \"../set\"\n").unwrap();
        assert_eq!(from(&around), "set");
        let variable = recipes(&at("variable"), "variable").display().to_string();
        around.variables.insert(VARIABLE.to_owned(), variable);
        assert_eq!(from(&around), "variable");
        around.recipes = Some(recipes(&at("flag"), "flag"));
        assert_eq!(from(&around), "flag");
    }

    #[test]
    fn a_folder_that_is_not_there_is_refused_with_where_it_was_set() {
        let work = tempfile::tempdir().unwrap();
        let refusal = |around: &Surroundings| library(around).unwrap_err();
        let mut around = Surroundings { project: work.path().to_owned(), ..Surroundings::default() };
        fs::write(work.path().join("qlaunch.toml"), "recipes = \"gone\"\n").unwrap();
        let error = refusal(&around);
        assert!(error.message.contains("`gone` does not exist; it is set by"), "{error}");
        assert!(error.message.ends_with("qlaunch.toml"), "{error}");
        around.variables.insert(VARIABLE.to_owned(), "nowhere".to_owned());
        assert!(refusal(&around).message.ends_with("set by the environment variable QLAUNCH_RECIPES"));
        around.recipes = Some(PathBuf::from("qlaunch.toml"));
        assert_eq!(
            refusal(&around).message,
            "the recipe folder `qlaunch.toml` is no folder; it is set by `--recipes`"
        );
        fs::write(work.path().join("qlaunch.toml"), "recipes = 3\n").unwrap();
        around.recipes = None;
        around.variables.clear();
        assert_eq!(refusal(&around).message, "`recipes` is a path");
        assert_eq!(refusal(&around).exit_code(), 3);
    }
}
