//! `qlaunch recipe list`: what can be named where a recipe is asked for.

use anstyle::Style;
use clap::Args;
use qlaunch_shared::Result;
use qlaunch_shared::protocol::Level;
use qlaunch_shared::recipe::{Kind, Listing, list};
use serde_json::{Value, json};

use crate::cli::main::Context;
use crate::config::library;
use crate::ui::{Column, Table, note};

/// Lists recipes and presets; a file that cannot be read is listed with what is wrong with it.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only names that contain this.
    filter: Option<String>,
    /// Building blocks too, which cannot be run by themselves.
    #[arg(long)]
    all: bool,
}

/// Runs the command.
pub fn run(args: &ListArgs, context: &mut Context) -> Result<u8> {
    let usable = |listing: &Listing| match &listing.definition {
        Ok(definition) => args.all || matches!(definition.kind, Kind::Recipe(_) | Kind::Preset),
        Err(_) => true,
    };
    let wanted = |listing: &Listing| args.filter.as_ref().is_none_or(|filter| listing.name.contains(filter));
    let mut listings = list(&library(&context.around)?);
    listings.retain(|listing| usable(listing) && wanted(listing));
    if context.screen.json {
        let document: Vec<Value> = listings.iter().map(entry).collect();
        context.screen.document(&document)?;
        return Ok(0);
    }
    let mut table =
        Table::new(vec![Column::left("name"), Column::left("type"), Column::left("description").rank(1)]);
    for listing in &listings {
        let first = match &listing.definition {
            Ok(_) => listing.description().lines().next().unwrap_or_default().to_owned(),
            Err(error) => format!("{} (`qlaunch recipe check {}`)", error.message, listing.name),
        };
        let short: String = first.chars().take(90).collect();
        table.row(vec![listing.name.clone(), kind(listing).to_owned(), short], Style::new());
    }
    let text = table.draw(context.screen.width).text;
    context.screen.data(&text)?;
    let broken = listings.iter().filter(|listing| listing.definition.is_err());
    for listing in broken {
        let text = format!("`{}` cannot be used: `qlaunch recipe check {0}` says why", listing.name);
        context.screen.say(&note(Level::Warning, &text));
    }
    Ok(0)
}

fn kind(listing: &Listing) -> &'static str {
    listing.definition.as_ref().map_or("broken", |definition| definition.kind.name())
}

fn entry(listing: &Listing) -> Value {
    let mut entry =
        json!({"name": listing.name, "type": kind(listing), "description": listing.description()});
    if let Err(error) = &listing.definition {
        entry["error"] = json!(error);
    }
    entry
}
