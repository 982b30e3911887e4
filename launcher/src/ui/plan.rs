//! Plans as people read them: a line for each candidate, a table for each module.

use anstyle::Style;
use qlaunch_shared::assign::{ModuleKind, ModulePlan, Plan};

use super::figures::{bytes, count, megabytes, parameters};
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
    words.join(" · ")
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
        table.row(group, Style::new());
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
    let idle = plan.coverage.patterns.iter().filter(|pattern| pattern.enables && pattern.matched == 0);
    lines.extend(idle.map(|pattern| format!("matched nothing: {}", pattern.pattern)));
    lines.extend(plan.notes.iter().map(|note| format!("note: {note}")));
    lines.join("\n")
}

/// Rows of modules that differ in their numbers only: `model.layers.{0..7}.mlp.up_proj`.
fn groups(modules: &[ModulePlan]) -> Vec<Vec<String>> {
    let mut groups: Vec<(String, &ModulePlan, Vec<usize>, u64, u64)> = Vec::new();
    for module in modules.iter().filter(|module| module.bytes > 0 || module.kind != ModuleKind::Other) {
        let (pattern, number) = numbered(&module.name);
        let same = groups.iter_mut().find(|(other, first, ..)| {
            *other == pattern
                && (&first.weight, &first.input, &first.output)
                    == (&module.weight, &module.input, &module.output)
        });
        match same {
            Some((_, _, numbers, bytes, source)) => {
                numbers.extend(number);
                *bytes += module.bytes;
                *source += module.source_bytes;
            }
            None => {
                groups.push((
                    pattern,
                    module,
                    number.into_iter().collect(),
                    module.bytes,
                    module.source_bytes,
                ));
            }
        }
    }
    groups
        .into_iter()
        .map(|(pattern, first, numbers, bytes, source)| {
            let name = match numbers.is_empty() {
                true => pattern,
                false => pattern.replacen('#', &ranges(&numbers), 1),
            };
            let (weight, input, output) = (first.weight.clone(), first.input.clone(), first.output.clone());
            vec![name, weight, input, output, count(bytes), count(source)]
        })
        .collect()
}

/// A name with its first number taken out.
fn numbered(name: &str) -> (String, Option<usize>) {
    let mut number = None;
    let parts: Vec<&str> = name
        .split('.')
        .map(|part| match (number, part.parse::<usize>()) {
            (None, Ok(found)) => {
                number = Some(found);
                "#"
            }
            _ => part,
        })
        .collect();
    (parts.join("."), number)
}

/// Numbers as ranges: `{0-3,5}`.
fn ranges(numbers: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let words: Vec<String> = ranges
        .into_iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    if words.len() == 1 && !words[0].contains('-') {
        words[0].clone()
    } else {
        format!("{{{}}}", words.join(","))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
