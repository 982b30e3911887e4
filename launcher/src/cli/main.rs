//! The entry point: parses, runs the command, and turns errors into words and exit codes.

use std::process::ExitCode;

use clap::Parser;
use qlaunch_shared::{Error, Result};

use super::arguments::{Arguments, Command, Format};
use super::{
    cancel, cluster, doctor, eval, fetch, logs, plan, portfolio, quantize, recipe, reproduce, schedule,
    status, store, submit, verify, watch,
};
use crate::config::Surroundings;
use crate::ui::{Screen, error};

/// What every command is given.
pub struct Context {
    /// What the process finds around it.
    pub around: Surroundings,
    /// Where it writes.
    pub screen: Screen,
}

/// Runs the program on the process's own arguments.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(refusal) => {
            // Help and version go to stdout, everything else to stderr; a closed pipe needs no word.
            drop(refusal.print());
            return ExitCode::from(u8::try_from(refusal.exit_code()).unwrap_or(2));
        }
    };
    let json = arguments.format == Format::Json;
    let around = Surroundings { recipes: arguments.recipes, ..Surroundings::gather() };
    let mut context = Context { around, screen: Screen::of_process(json) };
    match run(arguments.command, &mut context) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => report(&failure, &mut context),
    }
}

fn run(command: Command, context: &mut Context) -> Result<u8> {
    match command {
        Command::Submit(args) => submit::run(args, context),
        Command::Status(args) => status::run(&args, context),
        Command::Watch(args) => watch::run(&args, context),
        Command::Logs(args) => logs::run(&args, context),
        Command::Cancel(args) => cancel::run(&args, context),
        Command::Rerun(args) => watch::rerun(args, context),
        Command::Fetch(args) => fetch::run(&args, context),
        Command::Cluster(args) => cluster::run(&args, context),
        Command::Portfolio(args) => portfolio::run(args, context),
        Command::Store(args) => store::run(&args, context),
        Command::Verify(args) => verify::run(&args, context),
        Command::Reproduce(args) => reproduce::run(&args, context),
        Command::Plan(args) => plan::run(&args, context),
        Command::Quantize(args) => quantize::run(&args, context),
        Command::Eval(args) => eval::run(&args, context),
        Command::Recipe(args) => recipe::run(args, context),
        Command::Schedule(args) => schedule::run(args, context),
        Command::Doctor(args) => doctor::run(&args, context),
    }
}

/// Says what went wrong on stderr and, for programs, as the one JSON document on stdout.
fn report(failure: &Error, context: &mut Context) -> ExitCode {
    context.screen.say(&error(failure));
    if context.screen.json {
        drop(context.screen.document(&serde_json::json!({ "error": failure })));
    }
    ExitCode::from(failure.exit_code())
}
