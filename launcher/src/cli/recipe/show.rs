//! `qlaunch recipe show`: a recipe with everything it imports in place.

use clap::Args;
use qlaunch_shared::Result;
use qlaunch_shared::protocol::Level;
use qlaunch_shared::recipe::define;

use crate::cli::main::Context;
use crate::config::library;
use crate::ui::{note, yaml};

/// Shows what was written, imports in place; JSON has the form in which ModelOpt dumps it.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Name or path.
    name: String,
}

/// Runs the command.
pub fn run(args: &ShowArgs, context: &mut Context) -> Result<u8> {
    let definition = define(&library(&context.around)?, &args.name)?;
    for text in &definition.notes {
        context.screen.say(&note(Level::Info, text));
    }
    match context.screen.json {
        true => context.screen.document(&definition.content)?,
        false => {
            let (name, kind) = (&definition.name, definition.kind.name());
            let text = format!("# {name} ({kind})\n{}", yaml(&definition.content));
            context.screen.data(text.trim_end())?;
        }
    }
    Ok(0)
}
