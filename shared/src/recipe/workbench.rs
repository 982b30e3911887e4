//! A working folder for tests of the loader.

use std::path::Path;

use super::{Library, Recipe, load_recipe};
use crate::Result;

/// A temporary working folder beside the embedded library.
pub(super) struct Workbench {
    folder: tempfile::TempDir,
}

/// First lines of a snippet with a list of entries.
pub(super) const ENTRIES: &str =
    "# modelopt-schema: modelopt.torch.quantization.config.QuantizerCfgListConfig\n";
/// First lines of a snippet with attributes.
pub(super) const ATTRIBUTES: &str =
    "# modelopt-schema: modelopt.torch.quantization.config.QuantizerAttributeConfig\n";

impl Workbench {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn library(&self) -> Library {
        Library::embedded().working_in(self.path())
    }

    /// Writes a file and returns the bench, so that files can be laid out in a chain.
    pub fn with(self, name: &str, text: &str) -> Self {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    pub fn load(&self, name: &str) -> Result<Recipe> {
        load_recipe(&self.library(), name, &[])
    }

    pub fn load_with(&self, name: &str, overrides: &[&str]) -> Result<Recipe> {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        load_recipe(&self.library(), name, &overrides)
    }

    /// The resolved content as compact JSON.
    pub fn resolved(&self, name: &str) -> String {
        self.load(name).unwrap_or_else(|error| panic!("{error}")).resolved_json().unwrap().to_string()
    }

    /// The entries of a PTQ recipe as compact JSON.
    pub fn entries(&self, name: &str) -> String {
        let recipe = self.load(name).unwrap_or_else(|error| panic!("{error}"));
        recipe.resolved_json().unwrap()["quantize"]["quant_cfg"].to_string()
    }

    /// The error of a recipe, with the folder's name left out.
    pub fn refusal(&self, name: &str) -> String {
        self.tidy(&self.load(name).unwrap_err().to_string())
    }

    pub fn tidy(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.path().canonicalize().unwrap().display()), "")
            .replace(&format!("{}/", self.path().display()), "")
            .replace(&self.path().display().to_string(), "FOLDER")
    }

    /// The error of a PTQ recipe with these lines below `quantize:`.
    pub fn refused_body(lines: &str) -> String {
        let text = format!("metadata: {{recipe_type: ptq}}\nquantize:\n{lines}");
        Self::new().with("r.yaml", &text).refusal("r")
    }
}
