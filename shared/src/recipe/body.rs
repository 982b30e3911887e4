//! A recipe, resolved: everything that its files say, and where they were found.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::auto_quantize::AutoQuantize;
use super::config::QuantizeConfig;
use super::library::Library;
use crate::{Error, Result};

/// A recipe with all imports resolved; travels as it is inside a job spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Its name: path in the library without suffix, or the path of the file.
    pub name: String,
    /// Where it was found.
    pub origin: Origin,
    /// Whether it is a full recipe or a bare preset.
    pub form: Form,
    /// What it says about itself.
    pub metadata: Metadata,
    /// What it does.
    pub body: Body,
    /// What a person should know about how it was read: old names, old spellings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Where a recipe was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// In the library embedded in the program.
    BuiltIn,
    /// In a library folder that goes before the embedded one.
    Library(PathBuf),
    /// A file or folder of somebody's own.
    Own(PathBuf),
}

/// What sort of file a recipe comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A recipe with metadata.
    Recipe,
    /// A bare quantizer configuration, as the presets are.
    Preset,
}

/// What a recipe says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// What the recipe describes.
    pub recipe_type: RecipeType,
    /// What it is for, in a sentence or two.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::numerics::field::given"
    )]
    pub description: Option<String>,
}

/// What a recipe describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecipeType {
    /// Quantization after training; recipes for distillation with quantizers are of this type too.
    Ptq,
    /// A search for the best format of each layer.
    AutoQuantize,
    /// Training of an EAGLE draft model.
    SpeculativeEagle,
    /// Training of a DFlash, Domino or DSpark draft model.
    SpeculativeDflash,
    /// Training of Medusa heads.
    SpeculativeMedusa,
}

impl RecipeType {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Ptq,
        Self::AutoQuantize,
        Self::SpeculativeEagle,
        Self::SpeculativeDflash,
        Self::SpeculativeMedusa,
    ];

    /// The spelling in `metadata.recipe_type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ptq => "ptq",
            Self::AutoQuantize => "auto_quantize",
            Self::SpeculativeEagle => "speculative_eagle",
            Self::SpeculativeDflash => "speculative_dflash",
            Self::SpeculativeMedusa => "speculative_medusa",
        }
    }

    /// The section that a recipe of this type must have.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Ptq => "quantize",
            Self::AutoQuantize => "auto_quantize",
            Self::SpeculativeEagle => "eagle",
            Self::SpeculativeDflash => "dflash",
            Self::SpeculativeMedusa => "medusa",
        }
    }

    /// Whether it trains a draft model, which is recognised but not done here.
    pub const fn is_speculative(self) -> bool {
        matches!(self, Self::SpeculativeEagle | Self::SpeculativeDflash | Self::SpeculativeMedusa)
    }
}

/// What a recipe does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Quantizes as told.
    Quantize(QuantizeConfig),
    /// Searches for the best format of each layer.
    AutoQuantize {
        /// What modules outside the search spaces get.
        baseline: Option<QuantizeConfig>,
        /// The search.
        search: Box<AutoQuantize>,
    },
    /// Sections of a training recipe, as they are.
    Training(Map<String, Value>),
}

impl Recipe {
    /// The quantizer configuration of a recipe of type `ptq`.
    pub const fn quantize(&self) -> Option<&QuantizeConfig> {
        match &self.body {
            Body::Quantize(config) => Some(config),
            Body::AutoQuantize { .. } | Body::Training(_) => None,
        }
    }

    /// Appends a KV cache preset (`fp8`, `nvfp4_cast`, `none`, …) to a preset's entries, as ModelOpt's command
    /// does.
    ///
    /// # Errors
    /// An unknown name, or a recipe that is no preset and so decides about its KV cache itself.
    pub fn with_kv_cache(mut self, library: &Library, name: &str) -> Result<Self> {
        let appended = QuantizeConfig::kv_cache(library, name)?;
        let (Body::Quantize(config), Form::Preset) = (&mut self.body, self.form) else {
            return Err(Error::usage(format!(
                "the recipe `{}` decides about its KV cache itself",
                self.name
            ))
            .hint("leave out `--kv-cache`, or start from a preset such as `fp8` or `nvfp4`"));
        };
        if let Some(appended) = appended {
            config.append(appended);
            self.name = format!("{}-kv_{name}", self.name);
        }
        Ok(self)
    }

    /// The resolved content with sorted keys: explicitly written fields only, tuples as lists, a preset without
    /// metadata.
    ///
    /// # Errors
    /// None that a recipe read by this module can cause.
    pub fn resolved_json(&self) -> Result<Value> {
        let failed = |error: serde_json::Error| Error::bug(format!("a recipe did not become JSON: {error}"));
        let mut fields = Map::new();
        fields.insert("metadata".to_owned(), serde_json::to_value(&self.metadata).map_err(failed)?);
        match &self.body {
            Body::Quantize(config) => {
                let config = serde_json::to_value(config).map_err(failed)?;
                match self.form {
                    Form::Preset => return Ok(plain(config)),
                    Form::Recipe => fields.insert("quantize".to_owned(), config),
                };
            }
            Body::AutoQuantize { baseline, search } => {
                fields.insert("auto_quantize".to_owned(), serde_json::to_value(search).map_err(failed)?);
                if let Some(baseline) = baseline {
                    fields.insert("quantize".to_owned(), serde_json::to_value(baseline).map_err(failed)?);
                }
            }
            Body::Training(sections) => fields.extend(sections.clone()),
        }
        Ok(plain(Value::Object(fields)))
    }
}

/// Sorts keys at every depth and leaves out whose line an entry is.
pub(super) fn plain(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let is_entry = map.contains_key("quantizer_name");
            let mut fields: Vec<(String, Value)> = map
                .into_iter()
                .filter(|(key, _)| !(is_entry && key == "origin"))
                .map(|(key, value)| (key, plain(value)))
                .collect();
            fields.sort_by(|left, right| left.0.cmp(&right.0));
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(plain).collect()),
        other => other,
    }
}
