//! The command: looks at everything, tells it, and fails where nothing would go.

use std::path::PathBuf;

use clap::Args;
use qlaunch_shared::{Error, ErrorKind, Result};
use serde_json::json;

use super::check::{Check, Verdict};
use super::local::{folder, programs};
use super::node::node;
use crate::cli::main::Context;
use crate::config::{Overrides, Settings, library};
use crate::ship::worker_binary;

/// Looks at this machine: worker, processor, memory, GPU libraries, programs of clusters, folders and space.
#[derive(Debug, Args)]
pub struct DoctorArgs {}

/// Runs the command.
pub fn run(_args: &DoctorArgs, context: &mut Context) -> Result<u8> {
    let around = &context.around;
    let refused = |name: &str, error: &Error| {
        let hint = error.hint.clone().unwrap_or_else(|| "mend what the message names".to_owned());
        Check::fail(name, error.message.clone(), hint)
    };
    let (mut checks, mut probe) = (Vec::new(), None);
    let settings = Settings::load("local", around, &Overrides::default());
    match &settings {
        Ok(settings) => {
            checks.push(Check::ok("settings", "understood"));
            match worker_binary(settings, around) {
                Ok(worker) => {
                    let (told, document) = node(&worker);
                    checks.extend(told);
                    probe = document;
                }
                Err(error) => checks.push(refused("worker", &error)),
            }
        }
        Err(error) => checks.push(refused("settings", error)),
    }
    match library(around) {
        Ok(_) => checks.push(Check::ok("recipes", "found")),
        Err(error) => checks.push(refused("recipes", &error)),
    }
    checks.extend(programs());
    let runs =
        settings.as_ref().map_or_else(|_| around.project.join("runs"), |settings| settings.runs.clone());
    checks.push(folder("runs", &runs, "choose another folder with `--runs` or QLAUNCH_RUNS"));
    checks.push(folder("scratch", &std::env::temp_dir(), "choose another folder with TMPDIR"));
    checks.push(folder("cache", &cache(), "choose another folder with QLAUNCH_CACHE"));
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    if context.screen.json {
        context.screen.document(&json!({ "version": 1, "ok": !failed, "checks": checks, "node": probe }))?;
    } else {
        let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
        let lines: Vec<String> = checks.iter().map(|check| check.lines(width)).collect();
        context.screen.data(&lines.join("\n"))?;
    }
    Ok(if failed { ErrorKind::Input.exit_code() } else { 0 })
}

fn cache() -> PathBuf {
    let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path("QLAUNCH_CACHE").unwrap_or_else(|| {
        let base = path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")));
        base.unwrap_or_else(std::env::temp_dir).join("qlaunch")
    })
}
