//! `qlaunch portfolio`: shows the portfolio of a run again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use qlaunch_shared::protocol::RunFolder;
use qlaunch_shared::sweep::Portfolio;
use qlaunch_shared::yaml::did_you_mean;
use qlaunch_shared::{Error, Result};

use super::main::Context;
use crate::config::{Overrides, Settings};
use crate::ui::show_portfolio;

/// Shows the table that `submit` ended in.
#[derive(Debug, Args)]
pub struct PortfolioArgs {
    /// Name or folder of the run; the newest if not given.
    run: Option<String>,
    /// Folder of all runs.
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: PortfolioArgs, context: &mut Context) -> Result<u8> {
    let overrides = Overrides { runs: args.runs, ..Overrides::default() };
    let runs = Settings::load("local", &context.around, &overrides)?.runs;
    let folder = match &args.run {
        Some(run) => find(run, &runs)?,
        None => newest(&runs)?,
    };
    let portfolio = read(&folder)?;
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

fn find(run: &str, runs: &Path) -> Result<PathBuf> {
    let named = runs.join(run);
    let typed = PathBuf::from(run);
    match [named, typed].into_iter().find(|folder| folder.is_dir()) {
        Some(folder) => Ok(folder),
        None => {
            let known: Vec<String> = by_age(runs).into_iter().map(|(_, name)| name).collect();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            Err(Error::input(format!("there is no run `{run}`")).at(runs).hint(did_you_mean(run, &known)))
        }
    }
}

fn newest(runs: &Path) -> Result<PathBuf> {
    let newest = by_age(runs).into_iter().max();
    newest.map(|(_, name)| runs.join(name)).ok_or_else(|| {
        Error::input("there is no run with a portfolio")
            .at(runs)
            .hint("make one: `qlaunch submit examples/sweeps/tiny-llama.yaml`")
    })
}

/// Runs that have a portfolio, with the time it was written.
fn by_age(runs: &Path) -> Vec<(SystemTime, String)> {
    let folders = fs::read_dir(runs).into_iter().flatten().flatten();
    folders
        .filter_map(|folder| {
            let written = RunFolder(folder.path()).portfolio().metadata().ok()?.modified().ok()?;
            Some((written, folder.file_name().into_string().ok()?))
        })
        .collect()
}
