//! `qlaunch portfolio`: shows the portfolio of a run again.

use std::fs;
use std::path::Path;

use clap::Args;
use qlaunch_shared::protocol::RunFolder;
use qlaunch_shared::sweep::Portfolio;
use qlaunch_shared::{Error, Result};

use super::main::Context;
use super::runs::RunChoice;
use crate::ui::show_portfolio;

/// Shows the table that `submit` ended in.
#[derive(Debug, Args)]
pub struct PortfolioArgs {
    #[command(flatten)]
    choice: RunChoice,
}

/// Runs the command.
pub fn run(args: PortfolioArgs, context: &mut Context) -> Result<u8> {
    let portfolio = read(&args.choice.folder(&context.around)?)?;
    match context.screen.json {
        true => context.screen.document(&portfolio)?,
        false => {
            let text = show_portfolio(&portfolio, &context.screen);
            context.screen.data(&format!("{}\n{text}", portfolio.run))?;
        }
    }
    Ok(0)
}

fn read(folder: &Path) -> Result<Portfolio> {
    let path = RunFolder(folder.to_owned()).portfolio();
    let text = fs::read(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::input("the run has no portfolio yet")
            .at(folder)
            .hint("submit its sweep again to finish it: `qlaunch submit SWEEP`"),
        _ => Error::io("read the portfolio", &path, &error),
    })?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::input(format!("the portfolio cannot be read: {error}")).at(&path))
}
