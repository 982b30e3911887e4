//! The parts of a sweep file that have a grammar of their own: objective, rules with percentages, token data.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::bound::{Bound, Limit};
use super::file::{Baseline, Data, EARLY_STOP, Goal, Objective, Rules, beside};
use super::portfolio::NUMERIC_KEYS;
use crate::Result;
use crate::protocol::SilentExperts;
use crate::yaml::{Content, Node, did_you_mean, from_node};

/// The keys of a sweep file. Fields that are read from their nodes are here so that serde knows every key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "most fields are read from their nodes, which know their places")]
pub struct WrittenSweep {
    pub version: u32,
    pub name: String,
    pub model: String,
    pub objective: Option<Value>,
    pub acceptance: Option<Value>,
    pub calibration: Option<WrittenData>,
    pub evaluate: Option<WrittenData>,
    #[serde(default)]
    pub baselines: Vec<Value>,
    pub candidates: Vec<Value>,
    pub gates: Option<Value>,
    pub resources: Option<WrittenResources>,
    pub early_stop: Option<Value>,
}

/// The keys under `calibration:` and `evaluate:`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenData {
    data: String,
    samples: Option<usize>,
    seq_len: Option<usize>,
    batch_size: Option<usize>,
    seed: Option<u64>,
    silent_experts: Option<SilentExperts>,
}

/// The keys under `resources:`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "checks the keys; the values are read as the protocol's own type")]
pub struct WrittenResources {
    threads: Option<usize>,
    device: Option<String>,
    numeric_path: Option<String>,
    ranks: Option<usize>,
}

/// Reads `calibration:` or `evaluate:`. Counts of zero are refused: they would measure nothing.
pub fn data(node: Option<&Node>, file: &Path) -> Result<Option<Data>> {
    let Some(node) = node.filter(|node| !node.is_null()) else {
        return Ok(None);
    };
    let written: WrittenData = from_node(node)?;
    let counts =
        [("samples", written.samples), ("seq_len", written.seq_len), ("batch_size", written.batch_size)];
    for (key, count) in counts {
        if count == Some(0) {
            let place = node.child(key).unwrap_or(node);
            return Err(place.mark.refuse(format!("`{key}` must be at least 1")).key(key));
        }
    }
    Ok(Some(Data {
        data: beside(file, &written.data),
        samples: written.samples,
        seq_len: written.seq_len,
        batch_size: written.batch_size,
        seed: written.seed,
        silent_experts: written.silent_experts,
    }))
}

/// Reads `early_stop:`, a factor from 1 on, or `never`.
pub fn early_stop(node: Option<&Node>) -> Result<Option<f64>> {
    let Some(node) = node.filter(|node| !node.is_null()) else { return Ok(Some(EARLY_STOP)) };
    if node.text() == Some("never") {
        return Ok(None);
    }
    match from_node::<f64>(node) {
        Ok(factor) if factor >= 1.0 && factor.is_finite() => Ok(Some(factor)),
        _ => Err(node
            .mark
            .refuse("`early_stop` is a factor of at least 1, or `never`")
            .key("early_stop")
            .hint(format!("write `early_stop: {EARLY_STOP}`, or leave it out"))),
    }
}

/// `{key: KEY, goal: min|max}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenObjective {
    key: String,
    goal: Goal,
}

/// Reads `objective:`.
pub fn objective(node: &Node) -> Result<Objective> {
    match node.text() {
        Some("memory") => Ok(Objective::memory()),
        Some("compute") => Ok(Objective::compute()),
        Some(other) => {
            let refusal = node.mark.refuse(format!("there is no objective `{other}`")).key("objective");
            let hint = match NUMERIC_KEYS.contains(&other) {
                true => format!("say which end is better: {{key: {other}, goal: min}}"),
                false => "use `memory`, `compute`, or {key: KEY, goal: min}".to_owned(),
            };
            Err(refusal.hint(hint))
        }
        None => {
            let written: WrittenObjective = from_node(node)?;
            known_key(&written.key, node.child("key").unwrap_or(node), "objective.key")?;
            Ok(Objective { name: written.key.clone(), key: written.key, goal: written.goal })
        }
    }
}

/// Reads a mapping from portfolio keys to bounds.
pub fn rules(node: &Node, section: &str) -> Result<Rules> {
    let Some(mapping) = node.mapping().filter(|mapping| !mapping.is_empty()) else {
        let refusal =
            node.mark.refuse(format!("`{section}` maps figures to limits, this is {}", node.kind()));
        return Err(refusal
            .key(section)
            .hint(format!("write `{section}:` and below it `  KEY: {{max: LIMIT}}`")));
    };
    mapping
        .iter()
        .map(|entry| {
            let path = format!("{section}.{}", entry.key);
            if !NUMERIC_KEYS.contains(&entry.key.as_str()) {
                let refusal = entry.mark.refuse(format!("there is no figure `{}`", entry.key)).key(path);
                return Err(refusal.hint(did_you_mean(&entry.key, &NUMERIC_KEYS)));
            }
            Ok((entry.key.clone(), bound(&entry.node, &path)?))
        })
        .collect()
}

/// `{max: …, min: …, within: …, of: …}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenBound {
    max: Option<Value>,
    min: Option<Value>,
    within: Option<Value>,
    of: Option<String>,
}

fn bound(node: &Node, path: &str) -> Result<Bound> {
    let written: WrittenBound = from_node(node)?;
    let mut limits = Vec::new();
    if written.max.is_some() {
        limits.push(Limit::Max(number(node, "max", path)?));
    }
    if written.min.is_some() {
        limits.push(Limit::Min(number(node, "min", path)?));
    }
    match (written.within.is_some(), written.of) {
        (true, Some(of)) => limits.push(Limit::Within { share: share(node, path)?, of }),
        (true, None) => {
            let refusal = node.mark.refuse("`within` needs the baseline that it is meant of").key(path);
            return Err(refusal.hint("write {within: 1%, of: bf16}"));
        }
        (false, Some(_)) => {
            return Err(node
                .mark
                .refuse("`of` goes with `within`")
                .key(path)
                .hint("write {within: 1%, of: bf16}"));
        }
        (false, None) if limits.is_empty() => {
            let refusal = node.mark.refuse("this rule has no limit").key(path);
            return Err(refusal.hint("give `max`, `min`, or {within: 1%, of: bf16}"));
        }
        (false, None) => {}
    }
    Ok(Bound { limits })
}

/// A number or a percentage.
fn number(node: &Node, key: &str, path: &str) -> Result<f64> {
    let place = node.child(key).unwrap_or(node);
    let value = match &place.content {
        Content::Number(number) => number.as_f64(),
        Content::Text(text) => percentage(text),
        _ => None,
    };
    value.ok_or_else(|| {
        let refusal = place.mark.refuse(format!("`{key}` is neither a number nor a percentage"));
        refusal.key(format!("{path}.{key}")).hint("write a number like `0.05`, or a percentage like `1%`")
    })
}

/// A share: `1%` or `0.01`. A plain number of one or more is surely a percentage without its sign.
fn share(node: &Node, path: &str) -> Result<f64> {
    let share = number(node, "within", path)?;
    let place = node.child("within").unwrap_or(node);
    let bare = matches!(place.content, Content::Number(_));
    if share < 0.0 || (bare && share >= 1.0) {
        let refusal =
            place.mark.refuse(format!("`within: {share}` is not a share")).key(format!("{path}.within"));
        return Err(refusal.hint(format!("write `within: {}%`", share.abs())));
    }
    Ok(share)
}

fn percentage(text: &str) -> Option<f64> {
    let number = text.strip_suffix('%')?.trim();
    number.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| number / 100.0)
}

fn known_key(key: &str, node: &Node, path: &str) -> Result<()> {
    match NUMERIC_KEYS.contains(&key) {
        true => Ok(()),
        false => {
            let refusal = node.mark.refuse(format!("there is no figure `{key}`")).key(path);
            Err(refusal.hint(did_you_mean(key, &NUMERIC_KEYS)))
        }
    }
}

impl Bound {
    /// The first baseline it speaks of that the sweep does not have.
    pub(super) fn unknown_baseline(&self, baselines: &[Baseline]) -> Option<&str> {
        self.limits.iter().find_map(|limit| match limit {
            Limit::Within { of, .. } if baselines.iter().all(|baseline| baseline.name != *of) => {
                Some(of.as_str())
            }
            _ => None,
        })
    }
}
