//! Building the plan: a recipe against a model's headers.

use super::coverage::coverage;
use super::notes::notes;
use super::{
    Assignment, Grouping, MixedGroups, ModuleKind, ModulePlan, ModuleTensors, Plan, Totals,
    checkpoint_layout, checkpoint_tensors,
};
use crate::audit::engines::{Offered, engines};
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

/// What a resolution aims at besides the recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aims {
    /// Largest size of one safetensors file in bytes.
    pub shard_bytes: u64,
    /// How tensors are distributed over files.
    pub grouping: Grouping,
    /// What becomes of fused groups with mixed numerics.
    pub mixed_groups: MixedGroups,
}

/// Resolves a recipe against a model; `None` is the model as it is.
///
/// # Errors
/// As [`Assignment::resolve`]; recipes of another type than `ptq` are refused.
pub fn resolve(model: &Model, recipe: Option<&Recipe>, shard_bytes: u64) -> Result<Resolved> {
    resolve_with(
        model,
        recipe,
        Aims { shard_bytes, grouping: Grouping::BySize, mixed_groups: MixedGroups::Refuse },
    )
}

/// Resolves a recipe against a model with every choice spelt out; `None` is the model as it is.
///
/// # Errors
/// As [`Assignment::resolve`]; recipes of another type than `ptq` are refused.
pub fn resolve_with(model: &Model, recipe: Option<&Recipe>, aims: Aims) -> Result<Resolved> {
    let resolution = recipe
        .map(|recipe| {
            Assignment::settle(quantize_config(recipe)?, model, aims.mixed_groups)
                .map_err(|e| e.context(format!("recipe `{}`", recipe.name)))
        })
        .transpose()?;
    let (assignment, reach, changes) = match resolution {
        Some(found) => (Some(found.assignment), found.reach, found.changes),
        None => (None, Vec::new(), Vec::new()),
    };
    let tensors = checkpoint_tensors(model, assignment.as_ref())?;
    let layout = checkpoint_layout(model, &tensors, (aims.shard_bytes, aims.grouping))?;
    // The model as it is gets no new files: its size is the source's.
    let bytes = if assignment.is_some() { layout.bytes() } else { model.files.bytes() };
    let totals = Totals::of(model, assignment.as_ref(), &tensors, bytes);
    let modules: Vec<ModulePlan> =
        tensors.iter().map(|own| module_plan(model, assignment.as_ref(), own)).collect();
    let coverage = coverage(model, assignment.as_ref(), reach);
    let plan = Plan {
        recipe: recipe.map_or_else(|| model.config.dtype.name().to_lowercase(), |recipe| recipe.name.clone()),
        assignment: assignment.as_ref().map_or_else(|| "none".to_owned(), Assignment::hash),
        notes: notes(model, assignment.as_ref(), &coverage, &changes),
        modules,
        coverage,
        totals,
        engines: Vec::new(),
    };
    Ok(Resolved { assignment, tensors, layout, plan })
}

impl Resolved {
    /// Asks every engine what it will do with the checkpoint, and adds the answers to the plan.
    #[must_use]
    pub fn asking_engines(mut self, model: &Model) -> Self {
        self.plan.engines = engines(&Offered::planned(model, &self));
        self
    }
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

fn quantize_config(recipe: &Recipe) -> Result<&crate::recipe::QuantizeConfig> {
    recipe.quantize().ok_or_else(|| {
        let (why, hint) = match recipe.metadata.recipe_type.is_speculative() {
            true => ("it trains a draft model, which is not done here", "use ModelOpt to train it"),
            false => (
                "it asks for a search for the best format of each layer, which is not done here yet",
                "put the formats to choose from into a sweep file, as candidates",
            ),
        };
        let name = recipe.metadata.recipe_type.name();
        Error::input(format!("`{}` is of type `{name}` and cannot be run: {why}", recipe.name))
            .key("metadata.recipe_type")
            .hint(format!("{hint}; `qlaunch recipe list` shows recipes of type `ptq`"))
    })
}
