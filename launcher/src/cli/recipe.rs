//! `qlaunch recipe`: lists and shows recipes.

use anstyle::Style;
use clap::{Args, Subcommand};
use qlaunch_shared::Result;
use qlaunch_shared::protocol::Level;
use qlaunch_shared::recipe::{Kind, Listing, define, list};

use super::main::Context;
use crate::config::library;
use crate::ui::{Column, Table, note, yaml};

/// Recipes of the project (`recipes/`), of the user (`~/.config/qlaunch/recipes/`), and the built-in ones.
#[derive(Debug, Args)]
pub struct RecipeArgs {
    #[command(subcommand)]
    command: RecipeCommand,
}

#[derive(Debug, Subcommand)]
enum RecipeCommand {
    /// List recipes and presets.
    List {
        /// Only names that contain this.
        filter: Option<String>,
        /// Building blocks too, which cannot be run by themselves.
        #[arg(long)]
        all: bool,
    },
    /// Show a recipe with everything it imports in place.
    Show {
        /// Name or path.
        name: String,
    },
}

/// Runs the command.
pub fn run(args: RecipeArgs, context: &mut Context) -> Result<u8> {
    match args.command {
        RecipeCommand::List { filter, all } => list_recipes(filter.as_deref(), all, context),
        RecipeCommand::Show { name } => show(&name, context),
    }
}

fn list_recipes(filter: Option<&str>, all: bool, context: &mut Context) -> Result<u8> {
    let usable = |listing: &Listing| all || matches!(listing.kind, Kind::Recipe(_) | Kind::Preset);
    let wanted = |listing: &Listing| filter.is_none_or(|filter| listing.name.contains(filter));
    let recipes: Vec<Listing> = list(&library(&context.around))?
        .into_iter()
        .filter(|listing| usable(listing) && wanted(listing))
        .collect();
    if context.screen.json {
        let document: Vec<serde_json::Value> = recipes
            .iter()
            .map(|recipe| {
                serde_json::json!({
                    "name": recipe.name, "type": recipe.kind.name(), "description": recipe.description,
                })
            })
            .collect();
        context.screen.document(&document)?;
        return Ok(0);
    }
    let mut table =
        Table::new(vec![Column::left("name"), Column::left("type"), Column::left("description").rank(1)]);
    for recipe in recipes {
        let first = recipe.description.lines().next().unwrap_or_default();
        let short: String = first.chars().take(90).collect();
        table.row(vec![recipe.name, recipe.kind.name().to_owned(), short], Style::new());
    }
    let text = table.draw(context.screen.width).text;
    context.screen.data(&text)?;
    Ok(0)
}

fn show(name: &str, context: &mut Context) -> Result<u8> {
    let definition = define(&library(&context.around), name)?;
    for text in &definition.notes {
        context.screen.say(&note(Level::Info, text));
    }
    match context.screen.json {
        true => context.screen.document(&definition.content)?,
        false => {
            let text =
                format!("# {} ({})\n{}", definition.name, definition.kind.name(), yaml(&definition.content));
            context.screen.data(text.trim_end())?;
        }
    }
    Ok(0)
}
