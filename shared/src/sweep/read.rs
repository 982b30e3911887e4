//! Reads a sweep file: every key known, every value of its kind, every fault with file, line and column.

use std::path::Path;

use super::fields::{WrittenSweep, data, early_stop, objective, rules};
use super::file::{Baseline, Candidate, Sweep, VERSION, beside, candidate_name};
use crate::yaml::{Document, Node, from_document, from_node};
use crate::{Error, Result};

/// Names that a candidate must not have, because files of the run folder do.
const TAKEN: [&str; 9] = [
    "arrays",
    "sweep.yaml",
    "plan.json",
    "run.json",
    "journal.jsonl",
    "portfolio.json",
    "reference.safetensors",
    "owner",
    "cancel",
];

/// Reads the text of a sweep file; paths in it are taken from the file's own folder.
///
/// # Errors
/// Anything that is not a complete sweep. A sweep without objective or acceptance rule is refused with the lines to add.
pub fn read_sweep(text: &str, file: &Path) -> Result<Sweep> {
    let document = Document::parse(text, file)?;
    let root = document.root();
    let written: WrittenSweep = from_document(&document, file)?;
    if written.version != VERSION {
        return Err(at(root, "version")
            .mark
            .refuse(format!("version {} of the sweep file is not known", written.version))
            .key("version")
            .hint(format!("this program reads `version: {VERSION}`")));
    }
    let baselines = baselines(root)?;
    refuse_without_question(root, &baselines)?;
    let sweep = Sweep {
        version: written.version,
        name: folder_name(&written.name, at(root, "name"))?,
        model: beside(file, &written.model),
        objective: objective(at(root, "objective"))?,
        acceptance: rules(at(root, "acceptance"), "acceptance")?,
        calibration: data(root.child("calibration"), file)?,
        evaluate: data(root.child("evaluate"), file)?,
        candidates: candidates(root, file, &baselines)?,
        baselines,
        gates: root.child("gates").map(|node| rules(node, "gates")).transpose()?.unwrap_or_default(),
        resources: root.child("resources").map(from_node).transpose()?.unwrap_or_default(),
        early_stop: early_stop(root.child("early_stop"))?,
    };
    if let Some(node) = root.child("evaluate").and_then(|node| node.child("silent_experts")) {
        let refusal =
            node.mark.refuse("`silent_experts` is about calibration").key("evaluate.silent_experts");
        return Err(refusal.hint("move it below `calibration:`"));
    }
    check_references(root, &sweep)?;
    Ok(sweep)
}

/// The node under a key that is known to be there; the whole file's node otherwise, so that errors still have a place.
fn at<'a>(root: &'a Node, key: &str) -> &'a Node {
    root.child(key).unwrap_or(root)
}

/// What "best" and "good enough" mean is the person's decision: a sweep that does not say is refused.
fn refuse_without_question(root: &Node, baselines: &[Baseline]) -> Result<()> {
    let absent = |key: &str| root.child(key).is_none_or(Node::is_null);
    let baseline = baselines.first().map_or("bf16", |baseline| baseline.name.as_str());
    let mut missing = Vec::new();
    let mut lines = Vec::new();
    if absent("objective") {
        missing.push("objective");
        lines.push(
            "objective: memory            # or `compute`, or {key: active_bytes_per_token, goal: min}"
                .to_owned(),
        );
    }
    if absent("acceptance") {
        missing.push("acceptance rule");
        if baselines.is_empty() {
            lines.push(format!("baselines: [{baseline}]"));
        }
        lines.push("acceptance:".to_owned());
        lines.push(format!("  perplexity: {{within: 1%, of: {baseline}}}"));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let source = &root.mark.source.file;
    Err(Error::input(format!("the sweep has no {}", missing.join(" and no "))).at(source).hint(format!(
        "add to {}:\n\n{}",
        source.display(),
        lines.join("\n")
    )))
}

fn baselines(root: &Node) -> Result<Vec<Baseline>> {
    let Some(node) = root.child("baselines") else {
        return Ok(Vec::new());
    };
    let list = node.list().unwrap_or_default();
    list.iter()
        .map(|item| {
            let name = item.text().ok_or_else(|| {
                item.mark.refuse("a baseline is a name").key("baselines").hint("write `baselines: [bf16]`")
            })?;
            Ok(Baseline { name: folder_name(name, item)? })
        })
        .collect()
}

fn candidates(root: &Node, file: &Path, baselines: &[Baseline]) -> Result<Vec<Candidate>> {
    let node = at(root, "candidates");
    let list = node.list().unwrap_or_default();
    if list.is_empty() {
        let refusal = node.mark.refuse("the sweep has no candidates").key("candidates");
        return Err(refusal.hint("see `qlaunch recipe list` for recipes to try"));
    }
    let mut candidates: Vec<Candidate> = Vec::new();
    for item in list {
        let candidate = candidate(item, file)?;
        let taken = candidates.iter().any(|other| other.name == candidate.name)
            || baselines.iter().any(|baseline| baseline.name == candidate.name);
        if taken {
            let refusal =
                item.mark.refuse(format!("`{}` names two things", candidate.name)).key("candidates");
            return Err(refusal.hint("give this one a name of its own: {name: NAME, recipe: RECIPE}"));
        }
        candidates.push(candidate);
    }
    Ok(candidates)
}

/// One candidate: the name of a recipe, or a mapping with more to say.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCandidate {
    name: Option<String>,
    recipe: String,
    #[serde(default)]
    overrides: Vec<String>,
    kv_cache: Option<String>,
    #[expect(
        dead_code,
        reason = "known here so that serde accepts it; read from its node for better places"
    )]
    calibration: Option<serde_json::Value>,
}

fn candidate(item: &Node, file: &Path) -> Result<Candidate> {
    let place = (item.mark.line, item.mark.column);
    if let Some(recipe) = item.text() {
        let name = folder_name(&candidate_name(recipe), item)?;
        return Ok(Candidate {
            name,
            recipe: recipe.to_owned(),
            overrides: Vec::new(),
            kv_cache: None,
            calibration: None,
            place,
        });
    }
    let written: WrittenCandidate = from_node(item)?;
    let name = written.name.unwrap_or_else(|| candidate_name(&written.recipe));
    Ok(Candidate {
        name: folder_name(&name, item.child("name").unwrap_or(item))?,
        recipe: written.recipe,
        overrides: written.overrides,
        kv_cache: written.kv_cache,
        calibration: data(item.child("calibration"), file)?,
        place,
    })
}

/// A name that can be a folder's on every system and stands alone in a command.
fn folder_name(name: &str, node: &Node) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fits = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(plain)
        && name.len() <= 100
        && !TAKEN.contains(&name);
    match fits {
        true => Ok(name.to_owned()),
        false => Err(node
            .mark
            .refuse(format!("`{name}` cannot name a folder"))
            .hint("use letters, digits, `.`, `_` and `-`, and start with a letter or digit")),
    }
}

/// Rules must speak of baselines and measurements that the sweep has.
fn check_references(root: &Node, sweep: &Sweep) -> Result<()> {
    for (section, rules) in [("acceptance", &sweep.acceptance), ("gates", &sweep.gates)] {
        for (key, bound) in rules {
            let node = at(root, section).child(key).unwrap_or(root);
            if let Some(of) = bound.unknown_baseline(&sweep.baselines) {
                let refusal =
                    node.mark.refuse(format!("there is no baseline `{of}`")).key(format!("{section}.{key}"));
                return Err(refusal.hint(format!("add `baselines: [{of}]`")));
            }
            refuse_unmeasured(key, section, node, sweep)?;
        }
    }
    refuse_unmeasured(&sweep.objective.key, "objective", at(root, "objective"), sweep)
}

/// Figures that only an evaluation gives need `evaluate:`.
fn refuse_unmeasured(key: &str, section: &str, node: &Node, sweep: &Sweep) -> Result<()> {
    let measured = ["perplexity", "nll", "delta", "kl_mean", "tokens"].contains(&key);
    if measured && sweep.evaluate.is_none() {
        let refusal = node.mark.refuse(format!("{key} is not measured without `evaluate:`")).key(section);
        return Err(refusal.hint("add `evaluate: {data: FILE}`"));
    }
    let compared = ["delta", "kl_mean"].contains(&key);
    if compared && sweep.baselines.is_empty() {
        let refusal = node.mark.refuse(format!("{key} is not measured without a baseline")).key(section);
        return Err(refusal.hint("add `baselines: [bf16]`"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
