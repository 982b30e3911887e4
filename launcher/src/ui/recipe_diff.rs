//! Two recipes side by side, as people read them.

use anstyle::{AnsiColor, Style};
use qlaunch_shared::assign::{ModulePlan, Plan};
use qlaunch_shared::recipe::{Change, Comparison, EntryChange};
use serde::Serialize;
use serde_json::Value;

use super::modules::groups;
use super::recipe_file::flow;
use super::table::{Column, Table};

/// Modules of which two recipes make something else, or the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleChange {
    /// Name of the modules, with ranges for numbers.
    pub modules: String,
    /// Whether both recipes do the same to them.
    pub same: bool,
    /// What the first recipe makes of them.
    pub a: ModuleNumerics,
    /// What the second recipe makes of them.
    pub b: ModuleNumerics,
}

/// Numerics of a module: names of formats, or the model's dtype.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleNumerics {
    /// Of the stored weight.
    pub weight: String,
    /// Of the activations that it is multiplied with.
    pub input: String,
    /// Of its output: the KV cache of k_proj and v_proj.
    pub output: String,
}

/// Between the numerics of both recipes while they are grouped; no format has it in its name.
const BETWEEN: &str = "\u{1f}";

/// What two plans of one model make of its modules; modules that differ in numbers only stand in one row.
pub fn module_changes(a: &Plan, b: &Plan) -> Vec<ModuleChange> {
    let both = |a: &str, b: &str| format!("{a}{BETWEEN}{b}");
    let together = a.modules.iter().zip(&b.modules).map(|(a, b)| ModulePlan {
        weight: both(&a.weight, &b.weight),
        input: both(&a.input, &b.input),
        output: both(&a.output, &b.output),
        ..a.clone()
    });
    let together: Vec<ModulePlan> = together.collect();
    let side = |module: &ModulePlan, pick: fn(&str) -> Option<&str>| {
        let of = |text: &str| pick(text).unwrap_or(text).to_owned();
        ModuleNumerics { weight: of(&module.weight), input: of(&module.input), output: of(&module.output) }
    };
    let change = |name: String, like: &ModulePlan| {
        let a = side(like, |text| Some(text.split_once(BETWEEN)?.0));
        let b = side(like, |text| Some(text.split_once(BETWEEN)?.1));
        ModuleChange { modules: name, same: a == b, a, b }
    };
    groups(&together).into_iter().map(|group| change(group.name, group.like)).collect()
}

/// A row for each group of modules that fares differently, then how many groups fare alike.
pub fn show_modules(changes: &[ModuleChange], width: Option<usize>) -> String {
    let different: Vec<&ModuleChange> = changes.iter().filter(|change| !change.same).collect();
    if different.is_empty() {
        return "both do the same to every module of the model".to_owned();
    }
    let titles = ["modules", "weight", "input", "KV cache"];
    let mut table = Table::new(titles.into_iter().map(Column::left).collect());
    for change in &different {
        let (a, b) = (&change.a, &change.b);
        let cell = |a: &str, b: &str| if a == b { a.to_owned() } else { format!("{a} → {b}") };
        let row = vec![
            change.modules.clone(),
            cell(&a.weight, &b.weight),
            cell(&a.input, &b.input),
            cell(&a.output, &b.output),
        ];
        table.row(row, Style::new());
    }
    let alike = changes.len() - different.len();
    let alike = if alike == 0 { String::new() } else { format!("\n{alike} more rows of modules fare alike") };
    format!("{}{alike}", table.draw(width).text)
}

/// Lines as of `diff`: `-` for the first recipe, `+` for the second, `~` for another place.
pub fn show(name_a: &str, name_b: &str, comparison: &Comparison, width: Option<usize>) -> String {
    let red = Style::new().fg_color(Some(AnsiColor::Red.into()));
    let green = Style::new().fg_color(Some(AnsiColor::Green.into()));
    let mut lines = vec![format!("{red}--- {name_a}{red:#}"), format!("{green}+++ {name_b}{green:#}")];
    if comparison.is_empty() {
        lines.push("they do the same".to_owned());
        return lines.join("\n");
    }
    for change in &comparison.entries {
        lines.extend(entry_lines(change, red, green));
    }
    if !comparison.settings.is_empty() {
        if !comparison.entries.is_empty() {
            lines.push(String::new());
        }
        let mut table = Table::new(vec![Column::left("setting"), Column::left("a"), Column::left("b")]);
        for setting in &comparison.settings {
            let word =
                |value: &Option<Value>| value.as_ref().map_or("–".to_owned(), |value| short(&flow(value)));
            table.row(vec![setting.key.clone(), word(&setting.a), word(&setting.b)], Style::new());
        }
        lines.push(table.draw(width).text);
    }
    lines.join("\n")
}

/// Lists of formats are long; JSON has them whole.
fn short(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn entry_lines(change: &EntryChange, red: Style, green: Style) -> Vec<String> {
    let line = |sign: char, style: Style, entry: &Option<Value>| {
        entry.as_ref().map(|entry| format!("{style}{sign} {}{style:#}", flow(entry)))
    };
    let place = |index: Option<usize>| index.map_or(0, |index| index + 1);
    match change.change {
        Change::Moved => {
            let (from, to) = (place(change.index_a), place(change.index_b));
            let entry = change.a.as_ref().map_or_else(String::new, flow);
            vec![format!("~ {entry}  (entry {from} → {to}; later entries win)")]
        }
        Change::OnlyA | Change::OnlyB | Change::Changed => {
            [line('-', red, &change.a), line('+', green, &change.b)].into_iter().flatten().collect()
        }
    }
}
