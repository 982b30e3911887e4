//! Plans as people read them: a line for each candidate, a table for each module.

use anstyle::Style;
use qlaunch_shared::assign::{FamilyCoverage, ModulePlan, Plan};
use qlaunch_shared::audit::engines::{Answer, EngineVerdict};
use qlaunch_shared::protocol::Level;

use super::errors::note;
use super::figures::{bytes, count, megabytes, parameters};
use super::modules::groups;
use super::table::{Column, Table};

/// `56 of 57 linears NVFP4, lm_head bf16 · 7.62 MB (0.47×) · 6.2 bits · 2 patterns matched nothing`.
pub fn coverage(plan: &Plan) -> String {
    let totals = &plan.totals;
    let mut words = vec![
        quantized(plan),
        format!("{} ({:.2}×)", bytes(totals.bytes), totals.ratio),
        format!("{:.1} bits", totals.effective_bits),
    ];
    let idle =
        plan.coverage.patterns.iter().filter(|pattern| pattern.enables && pattern.matched == 0).count();
    match idle {
        0 => {}
        1 => words.push("1 pattern matched nothing".to_owned()),
        more => words.push(format!("{more} patterns matched nothing")),
    }
    words.extend(served(plan));
    words.join(" · ")
}

/// Which serving engines will load the checkpoint, where they were asked and something is quantized.
fn served(plan: &Plan) -> Option<String> {
    if plan.engines.is_empty() || plan.coverage.formats.is_empty() {
        return None;
    }
    let loading = plan.engines.iter().filter(|verdict| verdict.engine.is_server() && verdict.loads());
    let names: Vec<&str> = loading.map(|verdict| verdict.engine.name()).collect();
    Some(if names.is_empty() { "no serving engine loads it".to_owned() } else { names.join(", ") })
}

fn quantized(plan: &Plan) -> String {
    let coverage = &plan.coverage;
    if coverage.formats.is_empty() {
        return format!("{} linears as they are", coverage.linears);
    }
    let formats: Vec<String> = coverage
        .formats
        .iter()
        .map(|(format, number)| format!("{number} of {} linears {format}", coverage.linears))
        .collect();
    let mut words = formats.join(", ");
    match coverage.unquantized.as_slice() {
        [] => {}
        [one] => words.push_str(&format!(", {one} {}", plain_dtype(plan, one))),
        more => words.push_str(&format!(", {} as they are", more.len())),
    }
    if let Some((format, layers)) = &coverage.kv_cache {
        words.push_str(&format!(", KV cache {format} in {layers} layers"));
    }
    words
}

fn plain_dtype<'a>(plan: &'a Plan, module: &str) -> &'a str {
    plan.modules.iter().find(|other| other.name == module).map_or("as it is", |module| module.weight.as_str())
}

/// The whole plan: modules of equal numerics in one line, then coverage, totals and notes.
pub fn show(plan: &Plan, width: Option<usize>) -> String {
    let mut table = Table::new(vec![
        Column::left("modules"),
        Column::left("weight"),
        Column::left("input"),
        Column::left("output"),
        Column::right("bytes"),
        Column::right("source").rank(1),
    ]);
    for group in groups(&plan.modules) {
        let ModulePlan { weight, input, output, .. } = group.like.clone();
        let (bytes, source) = (count(group.bytes), count(group.source_bytes));
        table.row(vec![group.name, weight, input, output, bytes, source], Style::new());
    }
    let totals = &plan.totals;
    let mut lines = vec![
        table.draw(width).text,
        String::new(),
        format!("{} · {}", plan.recipe, coverage(plan)),
        format!(
            "{} · {} bytes exactly · {} MB a token · compute {:.3} of bf16 · assignment {}",
            parameters(totals.parameters),
            count(totals.bytes),
            megabytes(totals.active_bytes_per_token),
            totals.compute,
            plan.assignment
        ),
    ];
    if plan.coverage.families.len() > 1 {
        lines.push(families(&plan.coverage.families, width));
    }
    if !plan.coverage.patterns.is_empty() {
        lines.push(patterns(plan, width));
    }
    if !plan.engines.is_empty() {
        lines.push(engines(&plan.engines, width));
    }
    lines.extend(plan.notes.iter().map(|each| note(each.level, &each.text)));
    lines.join("\n")
}

/// Warnings of a plan, a line each.
pub fn warnings(plan: &Plan) -> impl Iterator<Item = String> {
    let loud = plan.notes.iter().filter(|each| each.level == Level::Warning);
    loud.map(|each| note(each.level, &each.text))
}

/// Each part of the model and what its modules are stored in.
fn families(families: &[FamilyCoverage], width: Option<usize>) -> String {
    let mut table =
        Table::new(vec![Column::left("part"), Column::right("modules"), Column::left("numerics")]);
    for family in families {
        let numerics = family.numerics.iter().map(|(name, number)| match family.numerics.len() {
            1 => name.clone(),
            _ => format!("{} {name}", count(*number as u64)),
        });
        let row = vec![
            family.family.name().to_owned(),
            count(family.modules as u64),
            numerics.collect::<Vec<_>>().join(", "),
        ];
        table.row(row, Style::new());
    }
    format!("\n{}", table.draw(width).text)
}

/// Each entry of the recipe and how many quantizers it reached.
fn patterns(plan: &Plan, width: Option<usize>) -> String {
    let mut table =
        Table::new(vec![Column::left("pattern"), Column::left("sets"), Column::right("quantizers")]);
    for reach in &plan.coverage.patterns {
        let matched = match reach.matched {
            0 if reach.enables => "none".to_owned(),
            matched => count(matched as u64),
        };
        let sets = if reach.enables { "on" } else { "off" };
        table.row(vec![reach.pattern.clone(), sets.to_owned(), matched], Style::new());
    }
    format!("\n{}\n", table.draw(width).text)
}

/// What each engine will do, and by which rule it refuses.
fn engines(verdicts: &[EngineVerdict], width: Option<usize>) -> String {
    let mut table =
        Table::new(vec![Column::left("engine"), Column::left("loads"), Column::left("rule").rank(1)]);
    for verdict in verdicts {
        let (loads, rule) = match &verdict.answer {
            Answer::Loads => ("yes", String::new()),
            Answer::Refuses { rule, evidence } => ("no", format!("{rule}: {}", evidence.join("; "))),
            Answer::Unknown { why } => ("not known", why.clone()),
        };
        table.row(vec![verdict.named(), loads.to_owned(), rule], Style::new());
    }
    format!("\n{}\n", table.draw(width).text)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
