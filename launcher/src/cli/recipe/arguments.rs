//! The subcommands of `qlaunch recipe`.

use clap::{Args, Subcommand};
use qlaunch_shared::Result;

use super::check::CheckArgs;
use super::diff::DiffArgs;
use super::list::ListArgs;
use super::new::NewArgs;
use super::show::ShowArgs;
use super::{check, diff, list, new, page, show};
use crate::cli::main::Context;

/// Recipes of `--recipes DIR`, of the project (`recipes/`), of the user (`~/.config/qlaunch/recipes/`), and the built-in ones.
#[derive(Debug, Args)]
pub struct RecipeArgs {
    #[command(subcommand)]
    command: RecipeCommand,
}

#[derive(Debug, Subcommand)]
enum RecipeCommand {
    /// List recipes and presets.
    List(ListArgs),
    /// Show a recipe with everything it imports in place.
    Show(ShowArgs),
    /// Find everything that is wrong with a recipe.
    Check(CheckArgs),
    /// Tell what sets two recipes apart.
    Diff(DiffArgs),
    /// Start a recipe of one's own from one that works.
    New(NewArgs),
    /// Write the reference page of the built-in library.
    #[command(hide = true)]
    Page,
}

/// Runs the command.
pub fn run(args: RecipeArgs, context: &mut Context) -> Result<u8> {
    match args.command {
        RecipeCommand::List(args) => list::run(&args, context),
        RecipeCommand::Show(args) => show::run(&args, context),
        RecipeCommand::Check(args) => check::run(&args, context),
        RecipeCommand::Diff(args) => diff::run(&args, context),
        RecipeCommand::New(args) => new::run(&args, context),
        RecipeCommand::Page => page::run(context),
    }
}
