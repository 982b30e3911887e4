//! `qlaunch store`: what is kept, whether it is whole, what it is for, and how to make room.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use qlaunch_shared::store::{Condition, Key, Manifest, StoreFolder};
use qlaunch_shared::{Error, ErrorKind, Result};
use serde_json::json;

use super::main::Context;
use super::values::size;
use crate::config::{Overrides, Settings};
use crate::session::Site;
use crate::store::{Sweeping, leftovers, users};
use crate::ui::{bytes, roughly};

const EXAMPLES: &str = "\
Examples:
  qlaunch store ls                       what is kept, largest first
  qlaunch store verify                   reads every byte
  qlaunch store why 3fa9                 what an artifact was made from, and which checkpoints have it
  qlaunch store gc --max-size 20GB       makes room; what checkpoints of runs have stays";

/// Looks after what runs share: statistics, and pieces of checkpoints.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StoreArgs {
    #[command(subcommand)]
    action: Action,
    /// Folder of the store; that of the runs on this machine if not given.
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List artifacts, the largest first.
    Ls,
    /// Read every byte of every artifact.
    Verify,
    /// Tell what an artifact was made from, and who has it.
    Why {
        /// The first digits of its key.
        key: String,
    },
    /// Make room: take artifacts away that no checkpoint of a run has, the oldest first.
    Gc {
        /// What may stay, as in `20GB`; nothing that is of no use if not given.
        #[arg(long, value_name = "SIZE", value_parser = size)]
        max_size: Option<u64>,
        /// Tell what would go, and leave it.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Runs the command.
pub fn run(args: &StoreArgs, context: &mut Context) -> Result<u8> {
    let settings = Settings::load("local", &context.around, &Overrides::default())?;
    let store = match &args.store {
        Some(store) => context.around.project.join(store),
        None => Site::local_store(&settings),
    };
    if !store.is_dir() {
        return Err(Error::input("there is no store yet")
            .at(&store)
            .hint("the first sweep makes one: `qlaunch submit examples/sweeps/tiny-llama.yaml`"));
    }
    let store = StoreFolder(store);
    match &args.action {
        Action::Ls => list(&store, &settings, context),
        Action::Verify => verify(&store, context),
        Action::Why { key } => why(&store, &store.find(key)?, &settings, context),
        Action::Gc { max_size, dry_run } => collect(&store, (*max_size, *dry_run), &settings, context),
    }
}

/// Manifests of all artifacts; what is broken is said.
fn manifests(store: &StoreFolder, context: &mut Context) -> Result<Vec<Manifest>> {
    let mut found = Vec::new();
    for key in store.keys()? {
        match store.glance(&key) {
            Condition::Whole(manifest) => found.push(*manifest),
            Condition::Broken { why } => {
                context.screen.say(&format!("{} is broken and will be made again: {why}", key.short()));
            }
            Condition::Absent => {}
        }
    }
    Ok(found)
}

fn age(manifest: &Manifest) -> String {
    let made = UNIX_EPOCH + std::time::Duration::from_secs(manifest.made_at);
    SystemTime::now()
        .duration_since(made)
        .map_or_else(|_| "just now".to_owned(), |age| format!("{} ago", roughly(age)))
}

fn list(store: &StoreFolder, settings: &Settings, context: &mut Context) -> Result<u8> {
    let mut all = manifests(store, context)?;
    let users = users(&settings.runs)?;
    all.sort_by(|a, b| b.bytes().cmp(&a.bytes()).then_with(|| a.key.cmp(&b.key)));
    let used = |manifest: &Manifest| users.get(&manifest.key).map_or(0, Vec::len);
    if context.screen.json {
        let artifacts: Vec<_> = all
            .iter()
            .map(|manifest| json!({ "manifest": manifest, "checkpoints": used(manifest) }))
            .collect();
        context.screen.document(&json!({ "version": 1, "store": store.0, "artifacts": artifacts }))?;
        return Ok(0);
    }
    for manifest in &all {
        let use_count = match used(manifest) {
            0 => String::new(),
            1 => " · in 1 checkpoint".to_owned(),
            count => format!(" · in {count} checkpoints"),
        };
        let line = format!(
            "{}  {:>9}  {:<13}  {}{use_count} · {}",
            manifest.key.short(),
            bytes(manifest.bytes()),
            manifest.origin.step.name(),
            manifest.about,
            age(manifest)
        );
        context.screen.data(&line)?;
    }
    let total: u64 = all.iter().map(Manifest::bytes).sum();
    let seconds: f64 = all.iter().map(|manifest| manifest.cpu_seconds).sum();
    context.screen.say(&format!(
        "{} artifacts, {}; {seconds:.0} s of CPU time went into the layers · {}",
        all.len(),
        bytes(total),
        store.0.display()
    ));
    Ok(0)
}

fn verify(store: &StoreFolder, context: &mut Context) -> Result<u8> {
    let keys = store.keys()?;
    let (mut whole, mut broken) = (0u64, Vec::new());
    for key in &keys {
        match store.check(key) {
            Condition::Whole(manifest) => whole += manifest.bytes(),
            Condition::Broken { why } => {
                context.screen.say(&format!("{}: {why}", key.short()));
                broken.push(json!({ "key": key, "why": why }));
            }
            Condition::Absent => {}
        }
    }
    let count = keys.len() - broken.len();
    if context.screen.json {
        context.screen.document(&json!({
            "version": 1, "store": store.0, "whole": count, "bytes": whole, "broken": broken,
        }))?;
    } else {
        context.screen.data(&format!("{count} of {} artifacts are whole, {}", keys.len(), bytes(whole)))?;
        if !broken.is_empty() {
            context
                .screen
                .say("hint: what is broken is never used, and made again by the next job that needs it");
        }
    }
    Ok(if broken.is_empty() { 0 } else { ErrorKind::Gate.exit_code() })
}

fn why(store: &StoreFolder, key: &Key, settings: &Settings, context: &mut Context) -> Result<u8> {
    let manifest = match store.glance(key) {
        Condition::Whole(manifest) => *manifest,
        Condition::Broken { why } => {
            return Err(Error::input(format!("the artifact is broken: {why}"))
                .at(store.object(key))
                .hint("the next job that needs it makes it again"));
        }
        Condition::Absent => return Err(Error::input("the artifact is gone").at(store.object(key))),
    };
    let checkpoints = users(&settings.runs)?.remove(key).unwrap_or_default();
    // What of the same kind is nearest tells what would have to be the same for it to be shared.
    let mut others = manifests(store, context)?;
    others.retain(|other| other.key != *key && other.about == manifest.about);
    let nearest = others.iter().min_by_key(|other| manifest.origin.differences(&other.origin).len());
    if context.screen.json {
        let nearest = nearest.map(
            |other| json!({ "key": other.key, "differs_in": manifest.origin.differences(&other.origin) }),
        );
        context.screen.document(&json!({
            "version": 1, "manifest": manifest, "checkpoints": checkpoints, "nearest": nearest,
        }))?;
        return Ok(0);
    }
    let screen = &mut context.screen;
    screen.data(&format!("{}  {}", manifest.key, manifest.about))?;
    screen.data(&format!("{} by {} {}", bytes(manifest.bytes()), manifest.host, age(&manifest)))?;
    screen.data(&format!(
        "made by the code of `{}`, version {}, from",
        manifest.origin.step.name(),
        manifest.origin.code
    ))?;
    let width = manifest.origin.inputs.keys().map(String::len).max().unwrap_or(0);
    for (name, value) in &manifest.origin.inputs {
        screen.data(&format!("  {name:<width$}  {value}"))?;
    }
    for checkpoint in &checkpoints {
        screen.data(&format!("in {}", checkpoint.display()))?;
    }
    if checkpoints.is_empty() {
        screen.data("in no checkpoint of a run")?;
    }
    if let Some(other) = nearest {
        let differences = manifest.origin.differences(&other.origin).join(", ");
        screen.data(&format!("{} is the same but for: {differences}", other.key.short()))?;
    }
    Ok(0)
}

fn collect(
    store: &StoreFolder,
    (max_size, dry_run): (Option<u64>, bool),
    settings: &Settings,
    context: &mut Context,
) -> Result<u8> {
    let all = manifests(store, context)?;
    let users: BTreeMap<Key, Vec<PathBuf>> = users(&settings.runs)?;
    let sweeping = Sweeping::plan(all, &users, max_size.unwrap_or(0));
    let left = leftovers(store)?;
    if !dry_run {
        sweeping.carry_out(store)?;
        for folder in &left {
            std::fs::remove_dir_all(folder).map_err(|error| Error::io("take away", folder, &error))?;
        }
    }
    if context.screen.json {
        context.screen.document(&json!({
            "version": 1, "store": store.0, "dry_run": dry_run, "removed": sweeping.removed(),
            "freed": sweeping.freed(), "kept": sweeping.kept(), "leftovers": left.len(),
        }))?;
        return Ok(0);
    }
    let verb = if dry_run { "would go" } else { "gone" };
    context.screen.data(&format!(
        "{} artifacts {verb}, {}; {} stay",
        sweeping.removed().len(),
        bytes(sweeping.freed()),
        bytes(sweeping.kept())
    ))?;
    if !left.is_empty() {
        context.screen.data(&format!("{} unfinished or broken ones {verb}", left.len()))?;
    }
    Ok(0)
}
