//! The sections of a recipe: metadata, and what each type of recipe has beside it.

use super::auto_quantize::{AutoQuantize, HasBaseline, SearchSpace};
use super::body::{Body, Metadata, RecipeType};
use super::config::QuantizeConfig;
use super::faults::{Checked, Faults};
use super::read::{Reader, known_keys, mapping, place};
use super::training;
use super::typed::typed;
use crate::numerics::field::Field;
use crate::yaml::Node;
use crate::{Error, Result};

/// Metadata and body of a resolved recipe.
///
/// # Errors
/// Everything that ModelOpt's schema of this recipe type would refuse, at its line.
pub(super) fn recipe(node: &Node, reader: &mut Reader) -> Checked<(Metadata, Body)> {
    let fields = mapping(node, "a recipe")?;
    let written = fields.get("metadata").ok_or_else(|| missing_type(node))?;
    let mut faults = Faults::default();
    let metadata: Option<Metadata> = faults.keep(typed(written).map_err(|faults| faults.within("metadata")));
    let kind = match &metadata {
        Some(metadata) => metadata.recipe_type,
        // The body can be looked at as long as its type is clear.
        None => match written.child("recipe_type").map(typed) {
            Some(Ok(kind)) => kind,
            _ => return faults.unless_any(()).and(Err(missing_type(node).into())),
        },
    };
    let known: &[&str] = match kind {
        RecipeType::Ptq => &["metadata", "quantize"],
        RecipeType::AutoQuantize => &["metadata", "quantize", "auto_quantize"],
        _ => &["metadata", "model", "data", "training", kind.section()],
    };
    faults.keep(known_keys(node, known));
    let body = faults.keep(body(node, kind, reader));
    match (metadata, body) {
        (Some(metadata), Some(body)) => faults.unless_any((metadata, body)),
        _ => Err(faults),
    }
}

fn body(node: &Node, kind: RecipeType, reader: &mut Reader) -> Checked<Body> {
    Ok(match kind {
        RecipeType::Ptq => Body::Quantize(config(required(node, kind)?, "quantize", reader)?),
        RecipeType::AutoQuantize => auto_quantize(node, reader)?,
        RecipeType::SpeculativeEagle | RecipeType::SpeculativeDflash | RecipeType::SpeculativeMedusa => {
            Body::Training(training::sections(node, kind, reader)?)
        }
    })
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

fn config(node: &Node, key: &str, reader: &mut Reader) -> Checked<QuantizeConfig> {
    reader.config(node).map_err(|faults| faults.within(key))
}

fn configs(node: &Node, reader: &mut Reader) -> Checked<Vec<QuantizeConfig>> {
    let list = node.list().ok_or_else(|| {
        node.mark
            .refuse(format!("`candidate_formats` is a list of quantizer configurations, not {}", node.kind()))
    })?;
    let (mut configs, mut faults) = (Vec::with_capacity(list.len()), Faults::default());
    for (index, node) in list.iter().enumerate() {
        configs.extend(faults.keep(config(node, &index.to_string(), reader)));
    }
    faults.unless_any(configs)
}

fn auto_quantize(node: &Node, reader: &mut Reader) -> Checked<Body> {
    let mut faults = Faults::default();
    let written = node.child("quantize").filter(|node| !node.is_null());
    let baseline = faults.keep(written.map(|node| config(node, "quantize", reader)).transpose());
    let at = required(node, RecipeType::AutoQuantize)?;
    let search = faults.keep(search(at, reader).map_err(|faults| faults.within("auto_quantize")));
    let (Some(baseline), Some(search)) = (baseline, search) else {
        return Err(faults);
    };
    let has_baseline = if baseline.is_some() { HasBaseline::Yes } else { HasBaseline::No };
    let checked = search.check(has_baseline).map_err(|fault| Faults::from(place(&fault, at)));
    faults.keep(checked.map_err(|faults| faults.within("auto_quantize")));
    faults.unless_any(Body::AutoQuantize { baseline, search: Box::new(search) })
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

fn search(node: &Node, reader: &mut Reader) -> Checked<AutoQuantize> {
    let fields = mapping(node, "`auto_quantize`")?;
    let mut faults = Faults::default();
    faults.keep(known_keys(node, &SEARCH_KEYS));
    let constraints = optional(node, "constraints").and_then(|constraints| {
        let missing = || {
            let refusal = node.mark.refuse("`constraints` is missing").key("constraints");
            refusal.hint("add `constraints: {effective_bits: 4.8}`").into()
        };
        constraints.ok_or_else(missing)
    });
    let constraints = faults.keep(constraints);
    let part = |key: &'static str| move |faults: Faults| faults.within(key);
    let formats = fields.get("candidate_formats").map(|node| configs(node, reader)).transpose();
    let candidate_formats = faults.keep(formats.map_err(part("candidate_formats"))).flatten();
    let spaces = fields.get("module_search_spaces").map(|node| search_spaces(node, reader)).transpose();
    let module_search_spaces = faults.keep(spaces.map_err(part("module_search_spaces"))).flatten();
    let kv_cache = match fields.get("kv_cache") {
        None => Field::Unset,
        Some(node) if node.is_null() => Field::Null,
        Some(node) => faults.keep(config(node, "kv_cache", reader)).map_or(Field::Null, Field::Set),
    };
    let auto_quantize_method = faults.keep(optional(node, "auto_quantize_method")).flatten();
    let score_size = faults.keep(optional(node, "score_size")).flatten();
    let disabled_layers = faults.keep(optional(node, "disabled_layers")).flatten();
    let cost_excluded_layers = faults.keep(optional(node, "cost_excluded_layers")).flatten();
    let Some(constraints) = constraints else {
        return Err(faults);
    };
    faults.unless_any(AutoQuantize {
        constraints,
        candidate_formats,
        module_search_spaces,
        auto_quantize_method,
        score_size,
        disabled_layers,
        cost_excluded_layers,
        kv_cache,
    })
}

fn optional<T: serde::de::DeserializeOwned>(node: &Node, key: &str) -> Checked<Option<T>> {
    node.child(key).map(typed).transpose().map_err(|faults| faults.within(key))
}

fn search_spaces(node: &Node, reader: &mut Reader) -> Checked<Vec<SearchSpace>> {
    let list = node
        .list()
        .ok_or_else(|| node.mark.refuse(format!("`module_search_spaces` is a list, not {}", node.kind())))?;
    let (mut spaces, mut faults) = (Vec::with_capacity(list.len()), Faults::default());
    for (index, node) in list.iter().enumerate() {
        let read = search_space(node, reader).map_err(|faults| faults.within(&index.to_string()));
        spaces.extend(faults.keep(read));
    }
    faults.unless_any(spaces)
}

fn search_space(node: &Node, reader: &mut Reader) -> Checked<SearchSpace> {
    mapping(node, "a search space")?;
    let mut faults = Faults::default();
    faults.keep(known_keys(node, &["module_name_patterns", "candidate_formats", "allow_no_quant"]));
    let formats =
        node.child("candidate_formats").map_or_else(|| Ok(Vec::new()), |node| configs(node, reader));
    let candidate_formats = faults.keep(formats.map_err(|faults| faults.within("candidate_formats")));
    let module_name_patterns = faults.keep(optional(node, "module_name_patterns")).flatten();
    let allow_no_quant = faults.keep(optional(node, "allow_no_quant")).flatten();
    faults.unless_any(SearchSpace {
        module_name_patterns: module_name_patterns.unwrap_or_default(),
        candidate_formats: candidate_formats.unwrap_or_default(),
        allow_no_quant,
    })
}
