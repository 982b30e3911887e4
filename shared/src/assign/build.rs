//! Building the plan: a recipe against a model's headers.

use std::collections::BTreeMap;

use super::{
    Assignment, Coverage, ModuleKind, ModulePlan, ModuleTensors, PatternReach, Plan, Totals,
    checkpoint_layout, checkpoint_tensors,
};
use crate::model::{Model, Module, ModuleRole};
use crate::recipe::Recipe;
use crate::{Error, Result};

/// A recipe resolved against a model, with everything that follows from headers alone.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Numerics of every quantized module; `None` for the model as it is.
    pub assignment: Option<Assignment>,
    /// Tensors of the checkpoint, in module order.
    pub tensors: Vec<ModuleTensors>,
    /// The files that they will lie in.
    pub layout: crate::checkpoint::Layout,
    /// What a person reads.
    pub plan: Plan,
}

/// Resolves a recipe against a model; `None` is the model as it is.
///
/// # Errors
/// As [`Assignment::resolve`]; recipes of another type than `ptq` are refused.
pub fn resolve(model: &Model, recipe: Option<&Recipe>, shard_bytes: u64) -> Result<Resolved> {
    let (assignment, reach) = match recipe {
        Some(recipe) => {
            let (assignment, reach) = Assignment::resolve(quantize_config(recipe)?, model)
                .map_err(|e| e.context(format!("recipe `{}`", recipe.name)))?;
            (Some(assignment), reach)
        }
        None => (None, Vec::new()),
    };
    let tensors = checkpoint_tensors(model, assignment.as_ref())?;
    let layout = checkpoint_layout(&tensors, shard_bytes)?;
    // The model as it is gets no new files: its size is the source's.
    let bytes = if assignment.is_some() { layout.bytes() } else { model.files.bytes() };
    let totals = Totals::of(model, assignment.as_ref(), &tensors, bytes);
    let modules: Vec<ModulePlan> =
        tensors.iter().map(|own| module_plan(model, assignment.as_ref(), own)).collect();
    let coverage = coverage(model, assignment.as_ref(), reach);
    let plan = Plan {
        recipe: recipe.map_or_else(|| model.config.dtype.name().to_lowercase(), |recipe| recipe.name.clone()),
        assignment: assignment.as_ref().map_or_else(|| "none".to_owned(), Assignment::hash),
        notes: notes(model, &coverage),
        modules,
        coverage,
        totals,
    };
    Ok(Resolved { assignment, tensors, layout, plan })
}

/// The plan of a recipe on a model, from headers alone.
///
/// # Errors
/// As [`resolve`].
pub fn plan(model: &Model, recipe: Option<&Recipe>, shard_bytes: u64) -> Result<Plan> {
    resolve(model, recipe, shard_bytes).map(|resolved| resolved.plan)
}

fn module_plan(model: &Model, assignment: Option<&Assignment>, own: &ModuleTensors) -> ModulePlan {
    let plain = model.config.dtype.name().to_lowercase();
    let bytes = own.bytes();
    let Some(module) = own.module else {
        return ModulePlan {
            name: "(tensors of no known module)".to_owned(),
            kind: ModuleKind::Other,
            weight: plain.clone(),
            input: plain.clone(),
            output: plain,
            bytes,
            source_bytes: bytes,
        };
    };
    let part = &model.modules[module];
    let linear = assignment.and_then(|a| a.linear(module));
    let source = [model.weight(part), model.bias(part)];
    ModulePlan {
        name: part.name.clone(),
        kind: match part.role {
            ModuleRole::Linear { .. } => ModuleKind::Linear,
            ModuleRole::Embedding { .. } => ModuleKind::Embedding,
            ModuleRole::Norm { .. } | ModuleRole::Attention => ModuleKind::Other,
        },
        weight: linear.map_or_else(|| plain.clone(), |linear| linear.weight.name().to_owned()),
        input: linear
            .and_then(|linear| linear.input)
            .map_or_else(|| plain.clone(), |input| input.format.name().to_owned()),
        output: cache_format(assignment, part).unwrap_or(plain),
        bytes,
        source_bytes: source.into_iter().flatten().map(|tensor| tensor.length).sum(),
    }
}

fn cache_format(assignment: Option<&Assignment>, part: &Module) -> Option<String> {
    let cache = assignment?.cache(part.layer?)?;
    let numerics = match part.name.rsplit('.').next() {
        Some("k_proj") => cache.key,
        Some("v_proj") => cache.value,
        _ => return None,
    };
    Some(numerics.format.name().to_owned())
}

fn coverage(model: &Model, assignment: Option<&Assignment>, patterns: Vec<PatternReach>) -> Coverage {
    let linears: Vec<(usize, &Module)> =
        model.modules.iter().enumerate().filter(|(_, m)| m.is_linear()).collect();
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut unquantized = Vec::new();
    for (module, part) in &linears {
        match assignment.and_then(|a| a.linear(*module)).and_then(|linear| linear.algorithm().name()) {
            Some(name) => *counts.entry(name).or_default() += 1,
            None => unquantized.push(part.name.clone()),
        }
    }
    let mut formats: Vec<(String, usize)> =
        counts.into_iter().map(|(name, n)| (name.to_owned(), n)).collect();
    formats.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let kv_cache =
        assignment.and_then(|a| Some((a.caches.first()?.key.format.name().to_owned(), a.caches.len())));
    Coverage { linears: linears.len(), formats, patterns, unquantized, kv_cache }
}

fn notes(model: &Model, coverage: &Coverage) -> Vec<String> {
    let mut notes = Vec::new();
    let idle = coverage.patterns.iter().filter(|p| p.enables && p.matched == 0).count();
    if idle > 0 {
        notes.push(format!(
            "{idle} enabling pattern(s) of built-in units matched nothing (made for other families)"
        ));
    }
    let head = model.modules.iter().find(|module| module.name == "lm_head");
    if head
        .is_some_and(|_| coverage.linears > 0 && !coverage.unquantized.iter().any(|name| name == "lm_head"))
        && !coverage.formats.is_empty()
    {
        notes
            .push("the output head is quantized: few recipes do that, and accuracy often suffers".to_owned());
    }
    if !model.strangers.is_empty() {
        notes.push(format!(
            "{} tensor(s) belong to no known module and are carried over unchanged, `{}` first",
            model.strangers.len(),
            model.strangers[0]
        ));
    }
    notes
}

fn quantize_config(recipe: &Recipe) -> Result<&crate::recipe::QuantizeConfig> {
    recipe.quantize().ok_or_else(|| {
        Error::input(format!("`{}` is no PTQ recipe, and only those can be run", recipe.name))
            .key("metadata.recipe_type")
            .hint("`qlaunch recipe list` shows the types")
    })
}
