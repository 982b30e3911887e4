//! The shapes that ModelOpt's `# modelopt-schema:` comments name, as far as composing files needs them.
//!
//! An import inside a list is spliced or appended by comparing the snippet's shape with the list's, so the loader must
//! know the shape of every place in a recipe.

use super::body::RecipeType;

/// The shape of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    /// Nothing is known.
    Any,
    /// Text.
    Text,
    /// Attributes of one quantizer.
    Attributes,
    /// Attributes of one quantizer or of several in sequence.
    AttributesOrList,
    /// One entry of a quantizer configuration.
    Entry,
    /// Entries of a quantizer configuration.
    Entries,
    /// A quantizer configuration.
    Config,
    /// Several quantizer configurations.
    Configs,
    /// Patterns of module names.
    Patterns,
    /// What a recipe says about itself.
    Metadata,
    /// A recipe.
    Recipe(RecipeType),
    /// The search of an AutoQuantize recipe.
    Search,
    /// The budget of a search.
    Constraints,
    /// One search space.
    Space,
    /// Several search spaces.
    Spaces,
    /// A calibration algorithm or another mapping that is not looked into here.
    Opaque,
}

impl Schema {
    /// The shape that a dotted path names; `None` where ModelOpt has no such type.
    pub fn named(path: &str) -> Option<Self> {
        if let Some(name) = path.strip_prefix("modelopt.torch.quantization.config.") {
            return match name {
                "QuantizerAttributeConfig" => Some(Self::Attributes),
                "QuantizerCfgEntry" => Some(Self::Entry),
                "QuantizerCfgListConfig" | "QuantizeQuantCfgType" => Some(Self::Entries),
                "QuantizeConfig" => Some(Self::Config),
                "RotateConfig"
                | "LayerwiseConfig"
                | "QuantizeAlgorithmConfig"
                | "SVDQuantConfig"
                | "LSQConfig" => Some(Self::Opaque),
                _ => name.ends_with("CalibConfig").then_some(Self::Opaque),
            };
        }
        match path.strip_prefix("modelopt.recipe.config.")? {
            "RecipeMetadataConfig" => Some(Self::Metadata),
            "ModelOptPTQRecipe" => Some(Self::Recipe(RecipeType::Ptq)),
            "ModelOptAutoQuantizeRecipe" => Some(Self::Recipe(RecipeType::AutoQuantize)),
            "ModelOptEagleRecipe" => Some(Self::Recipe(RecipeType::SpeculativeEagle)),
            "ModelOptDFlashRecipe" => Some(Self::Recipe(RecipeType::SpeculativeDflash)),
            "ModelOptMedusaRecipe" => Some(Self::Recipe(RecipeType::SpeculativeMedusa)),
            "LayerPatternList" => Some(Self::Patterns),
            "AutoQuantizeConfig" => Some(Self::Search),
            "AutoQuantizeConstraints" => Some(Self::Constraints),
            "AutoQuantizeModuleSearchSpace" => Some(Self::Space),
            "AutoQuantizeCost" => Some(Self::Opaque),
            _ => None,
        }
    }

    /// The shape of the elements, if this is a list of known shape.
    pub const fn element(self) -> Option<Self> {
        match self {
            Self::Entries => Some(Self::Entry),
            Self::AttributesOrList => Some(Self::Attributes),
            Self::Configs => Some(Self::Config),
            Self::Patterns => Some(Self::Text),
            Self::Spaces => Some(Self::Space),
            _ => None,
        }
    }

    /// The shape of the value under a key.
    pub fn child(self, key: &str) -> Self {
        match (self, key) {
            (Self::Recipe(_), "metadata") => Self::Metadata,
            (Self::Recipe(RecipeType::Ptq | RecipeType::AutoQuantize), "quantize")
            | (Self::Search, "kv_cache") => Self::Config,
            (Self::Recipe(RecipeType::AutoQuantize), "auto_quantize") => Self::Search,
            (Self::Config, "quant_cfg") => Self::Entries,
            (Self::Entry, "cfg") => Self::AttributesOrList,
            (Self::Search | Self::Space, "candidate_formats") => Self::Configs,
            (Self::Search, "module_search_spaces") => Self::Spaces,
            (Self::Search, "constraints") => Self::Constraints,
            (Self::Search, "disabled_layers" | "cost_excluded_layers")
            | (Self::Space, "module_name_patterns") => Self::Patterns,
            _ => Self::Any,
        }
    }

    /// What a person would call it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Any => "anything",
            Self::Text => "a pattern",
            Self::Attributes => "quantizer attributes",
            Self::AttributesOrList => "quantizer attributes or a list of them",
            Self::Entry => "a quantizer entry",
            Self::Entries => "a list of quantizer entries",
            Self::Config => "a quantizer configuration",
            Self::Configs => "a list of quantizer configurations",
            Self::Patterns => "a list of patterns",
            Self::Metadata => "recipe metadata",
            Self::Recipe(_) => "a recipe",
            Self::Search => "an AutoQuantize search",
            Self::Constraints => "search constraints",
            Self::Space => "a search space",
            Self::Spaces => "a list of search spaces",
            Self::Opaque => "an algorithm",
        }
    }
}
