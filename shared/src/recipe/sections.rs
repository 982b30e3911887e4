//! The sections of a recipe: metadata, and what each type of recipe has beside it.

use super::auto_quantize::{AutoQuantize, HasBaseline, SearchSpace};
use super::body::{Body, Metadata, RecipeType};
use super::config::QuantizeConfig;
use super::read::{Reader, known_keys, mapping, place, within};
use super::training;
use crate::numerics::field::Field;
use crate::yaml::{Node, from_node};
use crate::{Error, Result};

/// Metadata and body of a resolved recipe.
///
/// # Errors
/// Anything that ModelOpt's schema of this recipe type would refuse, at its line.
pub(super) fn recipe(node: &Node, reader: &mut Reader) -> Result<(Metadata, Body)> {
    let fields = mapping(node, "a recipe")?;
    let Some(metadata) = fields.get("metadata") else {
        return Err(missing_type(node));
    };
    let metadata: Metadata = from_node(metadata).map_err(|error| within(error, "metadata"))?;
    let kind = metadata.recipe_type;
    let body = match kind {
        RecipeType::Ptq => {
            known_keys(node, &["metadata", "quantize"])?;
            Body::Quantize(config(required(node, kind)?, "quantize", reader)?)
        }
        RecipeType::AutoQuantize => {
            known_keys(node, &["metadata", "quantize", "auto_quantize"])?;
            auto_quantize(node, reader)?
        }
        RecipeType::SpeculativeEagle | RecipeType::SpeculativeDflash | RecipeType::SpeculativeMedusa => {
            known_keys(node, &["metadata", "model", "data", "training", kind.section()])?;
            Body::Training(training::sections(node, kind, reader)?)
        }
    };
    Ok((metadata, body))
}

/// The error for a file that does not say what sort of recipe it is.
pub(super) fn missing_type(node: &Node) -> Error {
    let known: Vec<&str> = RecipeType::ALL.iter().map(|kind| kind.name()).collect();
    node.mark
        .refuse("a recipe must say its type under `metadata.recipe_type`")
        .key("metadata.recipe_type")
        .hint(format!("add `metadata:` with `recipe_type: ptq` below it (types: {})", known.join(", ")))
}

/// The section that the recipe's type must have.
///
/// # Errors
/// It is missing.
pub(super) fn required(node: &Node, kind: RecipeType) -> Result<&Node> {
    let section = kind.section();
    node.child(section).ok_or_else(|| {
        node.mark
            .refuse(format!("a recipe of type `{}` must contain `{section}`", kind.name()))
            .key(section)
            .hint(format!("add `{section}:`, or change `metadata.recipe_type`"))
    })
}

fn config(node: &Node, key: &str, reader: &mut Reader) -> Result<QuantizeConfig> {
    reader.config(node).map_err(|error| within(error, key))
}

fn configs(node: &Node, reader: &mut Reader) -> Result<Vec<QuantizeConfig>> {
    let list = node.list().ok_or_else(|| {
        node.mark
            .refuse(format!("`candidate_formats` is a list of quantizer configurations, not {}", node.kind()))
    })?;
    list.iter().enumerate().map(|(index, node)| config(node, &index.to_string(), reader)).collect()
}

fn auto_quantize(node: &Node, reader: &mut Reader) -> Result<Body> {
    let baseline = match node.child("quantize").filter(|node| !node.is_null()) {
        Some(baseline) => Some(config(baseline, "quantize", reader)?),
        None => None,
    };
    let at = required(node, RecipeType::AutoQuantize)?;
    let in_section = |error| within(error, "auto_quantize");
    let search = search(at, reader).map_err(in_section)?;
    let has_baseline = if baseline.is_some() { HasBaseline::Yes } else { HasBaseline::No };
    search.check(has_baseline).map_err(|fault| in_section(place(&fault, at)))?;
    Ok(Body::AutoQuantize { baseline, search: Box::new(search) })
}

const SEARCH_KEYS: [&str; 8] = [
    "constraints",
    "candidate_formats",
    "module_search_spaces",
    "auto_quantize_method",
    "score_size",
    "disabled_layers",
    "cost_excluded_layers",
    "kv_cache",
];

fn search(node: &Node, reader: &mut Reader) -> Result<AutoQuantize> {
    let fields = mapping(node, "`auto_quantize`")?;
    known_keys(node, &SEARCH_KEYS)?;
    let Some(constraints) = optional(node, "constraints")? else {
        let refusal = node.mark.refuse("`constraints` is missing").key("constraints");
        return Err(refusal.hint("add `constraints: {effective_bits: 4.8}`"));
    };
    let part = |key: &'static str| move |error| within(error, key);
    let formats = fields.get("candidate_formats").map(|node| configs(node, reader));
    let candidate_formats = formats.transpose().map_err(part("candidate_formats"))?;
    let spaces = fields.get("module_search_spaces").map(|node| search_spaces(node, reader));
    let module_search_spaces = spaces.transpose().map_err(part("module_search_spaces"))?;
    let kv_cache = match fields.get("kv_cache") {
        None => Field::Unset,
        Some(node) if node.is_null() => Field::Null,
        Some(node) => Field::Set(config(node, "kv_cache", reader)?),
    };
    Ok(AutoQuantize {
        constraints,
        candidate_formats,
        module_search_spaces,
        auto_quantize_method: optional(node, "auto_quantize_method")?,
        score_size: optional(node, "score_size")?,
        disabled_layers: optional(node, "disabled_layers")?,
        cost_excluded_layers: optional(node, "cost_excluded_layers")?,
        kv_cache,
    })
}

fn optional<T: serde::de::DeserializeOwned>(node: &Node, key: &str) -> Result<Option<T>> {
    node.child(key).map(from_node).transpose().map_err(|error| within(error, key))
}

fn search_spaces(node: &Node, reader: &mut Reader) -> Result<Vec<SearchSpace>> {
    let list = node
        .list()
        .ok_or_else(|| node.mark.refuse(format!("`module_search_spaces` is a list, not {}", node.kind())))?;
    let mut spaces = Vec::with_capacity(list.len());
    for (index, node) in list.iter().enumerate() {
        let in_space = |error| within(error, &index.to_string());
        mapping(node, "a search space").map_err(in_space)?;
        known_keys(node, &["module_name_patterns", "candidate_formats", "allow_no_quant"])
            .map_err(in_space)?;
        let formats =
            node.child("candidate_formats").map_or_else(|| Ok(Vec::new()), |node| configs(node, reader));
        spaces.push(SearchSpace {
            module_name_patterns: optional(node, "module_name_patterns")
                .map_err(in_space)?
                .unwrap_or_default(),
            candidate_formats: formats.map_err(|error| in_space(within(error, "candidate_formats")))?,
            allow_no_quant: optional(node, "allow_no_quant").map_err(in_space)?,
        });
    }
    Ok(spaces)
}
