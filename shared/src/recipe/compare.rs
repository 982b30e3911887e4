//! Two recipes compared: entry by entry in their order, and everything beside the entries key by key.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::body::{Body, Recipe, plain};
use super::config::QuantizeConfig;
use super::entry::QuantizerEntry;
use crate::{Error, Result};

/// What sets two recipes apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Entries that only one of them has, that differ, or that stand at another place among the others.
    pub entries: Vec<EntryChange>,
    /// Everything beside the entries: type, algorithm, the parts of a search.
    pub settings: Vec<SettingChange>,
}

/// One difference of the entries; later entries win, so that their order counts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntryChange {
    /// What sort of difference it is.
    pub change: Change,
    /// The pattern.
    pub quantizer_name: String,
    /// Its index among the entries of the first recipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index_a: Option<usize>,
    /// Its index among the entries of the second recipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index_b: Option<usize>,
    /// The entry of the first recipe, as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<Value>,
    /// The entry of the second recipe, as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<Value>,
}

/// A sort of difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The first recipe alone has it.
    OnlyA,
    /// The second recipe alone has it.
    OnlyB,
    /// Both have an entry for the pattern at this place, with other content.
    Changed,
    /// Both have it, at another place among the others.
    Moved,
}

/// One key with different values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SettingChange {
    /// Dotted key.
    pub key: String,
    /// The first recipe's value; nothing where it has none.
    pub a: Option<Value>,
    /// The second recipe's value.
    pub b: Option<Value>,
}

impl Comparison {
    /// Whether nothing sets them apart.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.settings.is_empty()
    }
}

/// Compares what two recipes do; names and descriptions do not count.
///
/// # Errors
/// None that recipes read by this module can cause.
pub fn compare(a: &Recipe, b: &Recipe) -> Result<Comparison> {
    let (of_a, of_b) = (Side::of(a)?, Side::of(b)?);
    Ok(Comparison { entries: entries(&of_a.entries, &of_b.entries), settings: settings(&of_a, &of_b) })
}

/// One recipe in the form that is compared.
struct Side {
    entries: Vec<Value>,
    settings: BTreeMap<String, Value>,
}

impl Side {
    fn of(recipe: &Recipe) -> Result<Self> {
        let mut side = Self { entries: Vec::new(), settings: BTreeMap::new() };
        side.settings.insert("recipe_type".to_owned(), Value::from(recipe.metadata.recipe_type.name()));
        match &recipe.body {
            Body::Quantize(config) => side.add(config)?,
            Body::AutoQuantize { baseline, search } => {
                if let Some(baseline) = baseline {
                    side.add(baseline)?;
                }
                side.flatten("auto_quantize", &plain(json(search)?));
            }
            Body::Training(sections) => {
                for (key, section) in sections {
                    side.flatten(key, section);
                }
            }
        }
        Ok(side)
    }

    fn add(&mut self, config: &QuantizeConfig) -> Result<()> {
        self.entries = config.quant_cfg.iter().map(entry).collect::<Result<_>>()?;
        // A name and a mapping with nothing but that name ask for the same algorithm.
        match config.algorithm.as_object().filter(|map| map.len() == 1).and_then(|map| map.get("method")) {
            Some(name) => self.flatten("algorithm", name),
            None => self.flatten("algorithm", &config.algorithm),
        }
        if let Some(bits) = config.effective_bits {
            self.flatten("effective_bits", &Value::from(bits));
        }
        Ok(())
    }

    /// Mappings key by key, everything else as it is.
    fn flatten(&mut self, key: &str, value: &Value) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (step, field) in fields {
                    self.flatten(&format!("{key}.{step}"), field);
                }
            }
            other => {
                self.settings.insert(key.to_owned(), other.clone());
            }
        }
    }
}

fn json(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::bug(format!("a recipe did not become JSON: {error}")))
}

/// An entry by what it does: `enable: true` beside a `cfg` is what is meant without it too.
fn entry(entry: &QuantizerEntry) -> Result<Value> {
    let mut value = plain(json(entry)?);
    if let Value::Object(fields) = &mut value {
        if entry.enable && fields.get("cfg").is_some_and(|cfg| !cfg.is_null()) {
            fields.remove("enable");
        }
        fields.retain(|key, value| !(matches!(key.as_str(), "cfg" | "parent_class") && value.is_null()));
    }
    Ok(value)
}

fn settings(a: &Side, b: &Side) -> Vec<SettingChange> {
    let mut keys: Vec<&String> = a.settings.keys().chain(b.settings.keys()).collect();
    keys.sort();
    keys.dedup();
    let change = |key: &String| {
        let (a, b) = (a.settings.get(key).cloned(), b.settings.get(key).cloned());
        (a != b).then(|| SettingChange { key: key.clone(), a, b })
    };
    keys.into_iter().filter_map(change).collect()
}

/// The differences of two lists, in the order of the first with the second's own entries where they stand.
fn entries(a: &[Value], b: &[Value]) -> Vec<EntryChange> {
    let mut changes = Vec::new();
    let mut gap = (Vec::new(), Vec::new());
    let (mut i, mut j) = (0, 0);
    for (next_i, next_j) in common(a, b).into_iter().chain([(a.len(), b.len())]) {
        gap.0.extend(i..next_i);
        gap.1.extend(j..next_j);
        changes.extend(paired(a, b, std::mem::take(&mut gap)));
        (i, j) = (next_i + 1, next_j + 1);
    }
    moved(changes)
}

/// Entries between two common ones: those for the same quantizers are changed, the others are only on one side.
fn paired(a: &[Value], b: &[Value], (in_a, mut in_b): (Vec<usize>, Vec<usize>)) -> Vec<EntryChange> {
    let mut changes = Vec::new();
    for i in in_a {
        let partner = in_b.iter().position(|&j| reach(&a[i]) == reach(&b[j])).map(|place| in_b.remove(place));
        let change = if partner.is_some() { Change::Changed } else { Change::OnlyA };
        changes.push(EntryChange::new(change, Some((i, &a[i])), partner.map(|j| (j, &b[j]))));
    }
    changes.extend(in_b.into_iter().map(|j| EntryChange::new(Change::OnlyB, None, Some((j, &b[j])))));
    changes
}

/// Which quantizers an entry is for.
fn reach(entry: &Value) -> (Option<&Value>, Option<&Value>) {
    (entry.get("quantizer_name"), entry.get("parent_class"))
}

/// Equal entries of which each side has one alone are one entry that was moved.
fn moved(changes: Vec<EntryChange>) -> Vec<EntryChange> {
    let mut kept: Vec<EntryChange> = Vec::with_capacity(changes.len());
    for change in changes {
        let counterpart = kept.iter_mut().find(|other| match (other.change, change.change) {
            (Change::OnlyA, Change::OnlyB) => other.a == change.b,
            (Change::OnlyB, Change::OnlyA) => other.b == change.a,
            _ => false,
        });
        match counterpart {
            Some(other) => {
                other.change = Change::Moved;
                other.index_a = other.index_a.or(change.index_a);
                other.index_b = other.index_b.or(change.index_b);
                other.a = other.a.take().or(change.a);
                other.b = other.b.take().or(change.b);
            }
            None => kept.push(change),
        }
    }
    kept
}

impl EntryChange {
    fn new(change: Change, a: Option<(usize, &Value)>, b: Option<(usize, &Value)>) -> Self {
        let name = a.or(b).and_then(|(_, entry)| entry.get("quantizer_name")?.as_str());
        Self {
            change,
            quantizer_name: name.unwrap_or_default().to_owned(),
            index_a: a.map(|(index, _)| index),
            index_b: b.map(|(index, _)| index),
            a: a.map(|(_, entry)| entry.clone()),
            b: b.map(|(_, entry)| entry.clone()),
        }
    }
}

/// Longer lists than this are compared from both ends only: a table of their product would not fit.
const MAX_TABLE: usize = 4_000_000;

/// Index pairs of a longest common subsequence.
fn common(a: &[Value], b: &[Value]) -> Vec<(usize, usize)> {
    let head = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (rest_a, rest_b) = (&a[head..], &b[head..]);
    let tail = rest_a.iter().rev().zip(rest_b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (middle_a, middle_b) = (&rest_a[..rest_a.len() - tail], &rest_b[..rest_b.len() - tail]);
    let mut pairs: Vec<(usize, usize)> = (0..head).map(|index| (index, index)).collect();
    if middle_a.len().saturating_mul(middle_b.len()) <= MAX_TABLE {
        pairs.extend(longest(middle_a, middle_b).into_iter().map(|(i, j)| (i + head, j + head)));
    }
    pairs.extend((0..tail).rev().map(|back| (a.len() - 1 - back, b.len() - 1 - back)));
    pairs
}

/// The textbook table, from the end.
fn longest(a: &[Value], b: &[Value]) -> Vec<(usize, usize)> {
    let mut length = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            length[i][j] = match a[i] == b[j] {
                true => length[i + 1][j + 1] + 1,
                false => length[i + 1][j].max(length[i][j + 1]),
            };
        }
    }
    let (mut pairs, mut i, mut j) = (Vec::new(), 0, 0);
    while i < a.len() && j < b.len() {
        if a[i] == b[j] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if length[i + 1][j] >= length[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
