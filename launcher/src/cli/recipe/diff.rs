//! `qlaunch recipe diff`: what sets two recipes apart, in their entries and in what they do to a model.

use std::path::PathBuf;

use clap::Args;
use qlaunch_shared::assign::{Plan, resolve};
use qlaunch_shared::model::Model;
use qlaunch_shared::protocol::Level;
use qlaunch_shared::recipe::{Recipe, compare, load_recipe};
use qlaunch_shared::{Error, Result};
use serde_json::json;

use crate::cli::main::Context;
use crate::config::library;
use crate::plan::SHARD_BYTES;
use crate::ui::{ModuleChange, module_changes, note, show_comparison, show_module_changes};

const EXAMPLES: &str = "\
Examples:
  qlaunch recipe diff nvfp4 fp8
  qlaunch recipe diff general/ptq/nvfp4_default-kv_fp8 my/recipe.yaml --model models/tiny";

/// Compares two recipes or presets: entries in their order, everything else key by key, and module by module on a model.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DiffArgs {
    /// Name or path of the first.
    a: String,
    /// Name or path of the second.
    b: String,
    /// Folder of a model to compare them on.
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &DiffArgs, context: &mut Context) -> Result<u8> {
    let library = library(&context.around)?;
    let load = |name: &str| load_recipe(&library, name, &[]);
    let (a, b) = (load(&args.a)?, load(&args.b)?);
    let comparison = compare(&a, &b)?;
    let modules = match &args.model {
        Some(folder) => Some(on_model(&Model::open(folder)?, &a, &b)),
        None => None,
    };
    for text in a.notes.iter().chain(&b.notes) {
        context.screen.say(&note(Level::Info, text));
    }
    if context.screen.json {
        let (modules, refused) = match &modules {
            Some(Ok(changes)) => (Some(changes), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        context.screen.document(&json!({
            "a": a.name, "b": b.name, "same": comparison.is_empty(),
            "entries": comparison.entries, "settings": comparison.settings,
            "modules": modules, "modules_refused": refused,
        }))?;
        return Ok(0);
    }
    let text = show_comparison(&a.name, &b.name, &comparison, context.screen.width);
    context.screen.data(&text)?;
    match modules {
        Some(Ok(changes)) => {
            let text = show_module_changes(&changes, context.screen.width);
            context.screen.data(&format!("\n{text}"))?;
        }
        Some(Err(error)) => {
            context.screen.say(&note(Level::Warning, &format!("no comparison on the model: {error}")))
        }
        None => {}
    }
    Ok(0)
}

/// What becomes of each module; a recipe that cannot be carried out on the model leaves the entries to compare.
fn on_model(model: &Model, a: &Recipe, b: &Recipe) -> Result<Vec<ModuleChange>, Error> {
    let plan = |recipe: &Recipe| -> Result<Plan> { Ok(resolve(model, Some(recipe), SHARD_BYTES)?.plan) };
    Ok(module_changes(&plan(a)?, &plan(b)?))
}
