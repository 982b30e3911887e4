//! `qlaunch verify`: holds every weight file or tensor of a checkpoint against the digest that it was made with.

use std::path::PathBuf;

use clap::Args;
use qlaunch_shared::store::Assembly;
use qlaunch_shared::{ErrorKind, Result};
use serde_json::json;

use super::main::Context;
use crate::ui::bytes;

/// Checks that a checkpoint is what was made.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Folder of the checkpoint.
    checkpoint: PathBuf,
}

/// Runs the command.
pub fn run(args: &VerifyArgs, context: &mut Context) -> Result<u8> {
    let folder = context.around.project.join(&args.checkpoint);
    let assembly = Assembly::read(&folder)?;
    context.screen.say(&format!("reading {}", bytes(assembly.bytes())));
    let damages = assembly.damages(&folder, &mut |_| ())?;
    let files = assembly.files().count();
    if context.screen.json {
        context.screen.document(&json!({
            "version": 1, "checkpoint": folder, "pieces": assembly.pieces.len(), "files": files,
            "tensors": assembly.tensors.len(), "bytes": assembly.bytes(), "damages": damages,
        }))?;
    } else {
        for damage in &damages {
            context.screen.data(&format!("{} ({}): {}", damage.file.display(), damage.piece, damage.why))?;
        }
        if damages.is_empty() {
            let what = match assembly.tensors.len() {
                0 => format!("{files} files of {} pieces", assembly.pieces.len()),
                tensors => format!("{tensors} tensors"),
            };
            context.screen.data(&format!("{what} are what was made, {}", bytes(assembly.bytes())))?;
        }
    }
    Ok(if damages.is_empty() { 0 } else { ErrorKind::Gate.exit_code() })
}
