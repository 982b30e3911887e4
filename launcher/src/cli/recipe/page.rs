//! `qlaunch recipe page`: the reference page of the library, which is `docs/recipe-library.md`; not shown in help.

use qlaunch_shared::Result;
use qlaunch_shared::recipe::{Library, list};
use serde_json::json;

use crate::cli::main::Context;
use crate::ui::library_page;

/// Runs the command. The page tells of the built-in library, whatever folders go before it.
pub fn run(context: &mut Context) -> Result<u8> {
    let page = library_page(&list(&Library::embedded()));
    match context.screen.json {
        true => context.screen.document(&json!({ "page": page }))?,
        false => context.screen.data(page.trim_end())?,
    }
    Ok(0)
}
