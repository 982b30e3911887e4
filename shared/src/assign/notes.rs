//! What a person should know before a plan is carried out, and how loudly it is said.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::groups::GroupChange;
use super::plan::Coverage;
use super::{Assignment, ModuleFamily};
use crate::model::Model;
use crate::protocol::Level;

/// One thing that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// How loudly it is said.
    pub level: Level,
    /// What it is about.
    pub topic: Topic,
    /// A sentence.
    pub text: String,
    /// Every module concerned, where they have names.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub modules: Vec<String>,
}

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// A vision tower is quantized.
    Vision,
    /// A router is quantized.
    Router,
    /// The output head is quantized.
    Head,
    /// Patterns of built-in units matched nothing.
    Patterns,
    /// A fused group with mixed numerics was made to agree.
    FusedGroup,
    /// Tensors are carried over as they are.
    CarriedOver,
    /// Something about the model is not known as well as usual.
    Source,
}

impl Note {
    /// A note about something that concerns no module in particular.
    pub fn new(level: Level, topic: Topic, text: impl Into<String>) -> Self {
        Self { level, topic, text: text.into(), modules: Vec::new() }
    }
}

/// The notes on a plan: warnings first.
pub(super) fn notes(
    model: &Model,
    assignment: Option<&Assignment>,
    coverage: &Coverage,
    changes: &[GroupChange],
) -> Vec<Note> {
    let mut notes = sensitive(model, assignment);
    notes.extend(group_notes(changes));
    let idle = coverage.patterns.iter().filter(|p| p.enables && p.matched == 0).count();
    if idle > 0 {
        let text =
            format!("{idle} enabling pattern(s) of built-in units matched nothing (made for other families)");
        notes.push(Note::new(Level::Info, Topic::Patterns, text));
    }
    if let Some(first) = model.strangers.first() {
        let text = format!(
            "{} tensor(s) belong to no known module and are carried over unchanged, `{first}` first",
            model.strangers.len()
        );
        notes.push(Note::new(Level::Info, Topic::CarriedOver, text));
    }
    notes
}

/// Parts of a model that lose more than they save, one warning for each that the recipe quantizes.
fn sensitive(model: &Model, assignment: Option<&Assignment>) -> Vec<Note> {
    let parts = [
        (
            ModuleFamily::Vision,
            Topic::Vision,
            "the vision tower is quantized",
            "images are seen less clearly",
        ),
        (ModuleFamily::Router, Topic::Router, "routers are quantized", "tokens go to other experts"),
        (ModuleFamily::Head, Topic::Head, "the output head is quantized", "accuracy often suffers"),
    ];
    let linears = assignment.map_or(&[][..], |assignment| &assignment.linears);
    let of = |wanted: ModuleFamily| {
        linears.iter().filter(move |linear| ModuleFamily::of(&model.modules[linear.module]) == wanted)
    };
    let warning = |(family, topic, what, why): (ModuleFamily, Topic, &str, &str)| {
        let modules: Vec<String> = of(family).map(|linear| linear.name.clone()).collect();
        let first = of(family).next()?;
        let text = format!(
            "{what} ({}, `{}` first, {}): few recipes do that, and {why}",
            counted(modules.len(), "linear"),
            first.name,
            first.weight
        );
        Some(Note { level: Level::Warning, topic, text, modules })
    };
    parts.into_iter().filter_map(warning).collect()
}

/// Changes that differ in layer and expert only make one note.
fn group_notes(changes: &[GroupChange]) -> Vec<Note> {
    let mut alike: BTreeMap<(String, &str), Vec<&GroupChange>> = BTreeMap::new();
    for change in changes {
        let shape: Vec<&str> = change
            .parent
            .split('.')
            .map(|segment| if segment.bytes().all(|byte| byte.is_ascii_digit()) { "N" } else { segment })
            .collect();
        alike.entry((shape.join("."), &change.text)).or_default().push(change);
    }
    let note = |((shape, text), changes): ((String, &str), Vec<&GroupChange>)| {
        let place = match changes.as_slice() {
            [one] => format!("`{}`", one.parent),
            several => format!("`{shape}` ({} of them, `{}` first)", several.len(), several[0].parent),
        };
        let modules = changes.iter().flat_map(|change| change.members.clone()).collect();
        let text = format!("fused group of {place}: {text}");
        Note { level: Level::Warning, topic: Topic::FusedGroup, text, modules }
    };
    alike.into_iter().map(note).collect()
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        more => format!("{more} {noun}s"),
    }
}
