//! `qlaunch plan`: what a recipe will do to a model, from headers alone.

use std::path::PathBuf;

use clap::Args;
use qlaunch_shared::Result;
use qlaunch_shared::assign::{Aims, Grouping, MixedGroups, Note, Topic, resolve_with};
use qlaunch_shared::model::Survey;
use qlaunch_shared::protocol::Level;
use qlaunch_shared::recipe::{Recipe, load_recipe};

use super::hub::headers_here;
use super::main::Context;
use super::values::size;
use crate::config::{Surroundings, library};
use crate::plan::SHARD_BYTES;
use crate::ui::{note, show_plan};

/// Reads the model's headers only: no tensor is loaded, however large the model is.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Folder of the source model.
    pub model: PathBuf,
    #[command(flatten)]
    pub recipe: RecipeChoice,
    #[command(flatten)]
    pub groups: GroupChoice,
    /// Largest size of one safetensors file, as in `10GB` or `2GiB`.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_shard_size: Option<u64>,
}

/// What becomes of linears that serving engines fuse, where the recipe gives them different numerics.
#[derive(Debug, Args)]
pub struct GroupChoice {
    /// Gives all members of a fused group (q/k/v, gate/up) the numerics of the one with the most bits, instead of
    /// refusing a recipe that mixes them.
    #[arg(long)]
    pub fix_groups: bool,
}

impl GroupChoice {
    /// What becomes of mixed groups.
    pub const fn mixed(&self) -> MixedGroups {
        if self.fix_groups { MixedGroups::Fix } else { MixedGroups::Refuse }
    }
}

/// Which recipe, and what is changed in it.
#[derive(Debug, Args)]
pub struct RecipeChoice {
    /// Name or path of the recipe (see `qlaunch recipe list`).
    #[arg(long, value_name = "NAME")]
    pub recipe: String,
    /// Changes one value of the recipe; can be given more than once.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// KV cache numerics for a preset that leaves them open, as in `fp8`.
    #[arg(long, value_name = "NAME")]
    pub kv_cache: Option<String>,
}

impl RecipeChoice {
    /// Loads the recipe.
    pub fn load(&self, around: &Surroundings) -> Result<Recipe> {
        let library = library(around)?;
        let recipe = load_recipe(&library, &self.recipe, &self.overrides)?;
        match &self.kv_cache {
            Some(name) => recipe.with_kv_cache(&library, name),
            None => Ok(recipe),
        }
    }
}

/// Runs the command.
pub fn run(args: &PlanArgs, context: &mut Context) -> Result<u8> {
    let Survey { model, remarks } = Survey::of(&headers_here(&args.model, context)?)?;
    let recipe = args.recipe.load(&context.around)?;
    for text in &recipe.notes {
        context.screen.say(&note(Level::Info, text));
    }
    let shard_bytes = args.max_shard_size.unwrap_or(SHARD_BYTES);
    let aims = Aims { shard_bytes, grouping: Grouping::BySize, mixed_groups: args.groups.mixed() };
    let mut plan = resolve_with(&model, Some(&recipe), aims)?.asking_engines(&model).plan;
    plan.notes.extend(remarks.into_iter().map(|text| Note::new(Level::Warning, Topic::Source, text)));
    match context.screen.json {
        true => context.screen.document(&plan)?,
        false => {
            let text = show_plan(&plan, context.screen.width);
            context.screen.data(&text)?;
        }
    }
    Ok(0)
}
