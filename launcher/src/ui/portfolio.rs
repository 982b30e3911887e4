//! The portfolio as a table, with the candidate to take and what to do next.

use anstyle::{AnsiColor, Style};
use qlaunch_shared::protocol::VerdictKind;
use qlaunch_shared::sweep::{Decision, Goal, Portfolio, Row};

use super::figures::{NONE, change, count, grouped, megabytes, perplexity, short_bytes};
use super::screen::Screen;
use super::table::{Column, Table};

/// Shows a portfolio on a screen, as lines without a newline at the end.
pub fn show(portfolio: &Portfolio, screen: &Screen) -> String {
    let drawn = table(portfolio, screen).draw(screen.width);
    let mut lines = vec![drawn.text, String::new()];
    if drawn.left_out.iter().any(|title| title == "checkpoint") {
        lines.extend(portfolio.rows.iter().filter_map(|row| {
            let checkpoint = row.checkpoint.as_ref().filter(|_| row.recipe.is_some())?;
            Some(format!("{}: {}", row.candidate, screen.path(checkpoint)))
        }));
        lines.push(String::new());
    }
    let hidden: Vec<&str> =
        drawn.left_out.iter().map(String::as_str).filter(|title| *title != "checkpoint").collect();
    if !hidden.is_empty() {
        lines.push(format!("not shown on a terminal this narrow: {}", hidden.join(", ")));
    }
    for row in &portfolio.rows {
        lines.extend(row.notes.iter().map(|note| format!("note on {}: {note}", row.candidate)));
        lines.extend(explanation(row, screen));
    }
    lines.extend(recommendation(portfolio, screen));
    lines.extend(portfolio.next.iter().map(|step| format!("next: {}", from_here(step, screen))));
    lines.join("\n")
}

/// What failed, in full: the table has only room for the word.
fn explanation(row: &Row, screen: &Screen) -> Vec<String> {
    let failed = |gate: &&qlaunch_shared::sweep::GateResult| gate.verdict != VerdictKind::Pass;
    let mut lines: Vec<String> = row
        .gates
        .iter()
        .filter(failed)
        .map(|gate| {
            let word = if gate.verdict == VerdictKind::Fail { "failed" } else { "cannot tell" };
            format!("gate {} {word} for {}: {}", gate.gate, row.candidate, gate.evidence.join("; "))
        })
        .collect();
    if let Decision::Failed { error } = &row.decision {
        lines.push(format!("{} failed: {}", row.candidate, from_here(&error.to_string(), screen)));
    }
    lines
}

fn recommendation(portfolio: &Portfolio, screen: &Screen) -> Vec<String> {
    let taken = &portfolio.recommendation;
    match (&taken.candidate, &taken.checkpoint) {
        (Some(candidate), Some(checkpoint)) => {
            let good = Style::new().bold().fg_color(Some(AnsiColor::Green.into()));
            vec![
                format!("{good}recommended: {candidate} · {}{good:#}", screen.path(checkpoint)),
                format!("  {}", taken.reason),
            ]
        }
        _ => vec![format!("recommended: none: {}", taken.reason)],
    }
}

/// Paths inside sentences, as a person would type them here.
fn from_here(text: &str, screen: &Screen) -> String {
    let folder = screen.folder.display().to_string();
    if folder.len() <= 1 { text.to_owned() } else { text.replace(&format!("{folder}/"), "") }
}

fn table(portfolio: &Portfolio, screen: &Screen) -> Table {
    // The arrow points where better lies.
    let objective = match portfolio.objective.goal {
        Goal::Min => format!("{} ↓", portfolio.objective.name),
        Goal::Max => format!("{} ↑", portfolio.objective.name),
    };
    let mut table = Table::new(vec![
        Column::left("candidate"),
        Column::right(objective).rank(7),
        Column::right("size"),
        Column::right("ratio").rank(4),
        Column::right("bits").rank(3),
        Column::right("MB/token").rank(6),
        Column::right("perplexity"),
        Column::right("Δ").rank(1),
        Column::right("KL").rank(5),
        Column::left("gates").rank(2),
        Column::left("decision"),
        Column::left("checkpoint").rank(8),
    ]);
    for row in &portfolio.rows {
        table.row(cells(row, portfolio, screen), style(&row.decision));
    }
    table
}

fn cells(row: &Row, portfolio: &Portfolio, screen: &Screen) -> Vec<String> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    vec![
        row.candidate.clone(),
        or_none(row.objective.map(|figure| exact(&portfolio.objective.key, figure))),
        or_none(row.bytes.map(short_bytes)),
        or_none(row.ratio.map(|ratio| format!("{ratio:.2}"))),
        or_none(row.effective_bits.map(|bits| format!("{bits:.1}"))),
        or_none(row.active_bytes_per_token.map(megabytes)),
        or_none(row.perplexity.map(perplexity)),
        or_none(row.delta.map(change)),
        or_none(row.kl_mean.map(|kl| format!("{kl:.4}"))),
        gates(row),
        decision(&row.decision),
        or_none(row.checkpoint.as_ref().map(|path| screen.path(path).to_string())),
    ]
}

/// The objective's figure with all its digits, since the decision was made by them.
fn exact(key: &str, figure: f64) -> String {
    match key {
        "bytes" | "active_bytes_per_token" | "peak_memory" | "tokens" => grouped(figure),
        _ => format!("{figure:.4}"),
    }
}

fn gates(row: &Row) -> String {
    let counted = |kind: VerdictKind| row.gates.iter().filter(|gate| gate.verdict == kind).count();
    let kinds =
        [(VerdictKind::Pass, "pass"), (VerdictKind::Fail, "FAIL"), (VerdictKind::Indeterminate, "unclear")];
    let words: Vec<String> = kinds
        .into_iter()
        .map(|(kind, word)| (counted(kind), word))
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| format!("{} {word}", count(number as u64)))
        .collect();
    if words.is_empty() { NONE.to_owned() } else { words.join(", ") }
}

/// The decision in a word or a short phrase.
pub fn decision(decision: &Decision) -> String {
    match decision {
        Decision::Unfinished => "unfinished".to_owned(),
        Decision::Baseline => "baseline".to_owned(),
        Decision::Best => "best".to_owned(),
        Decision::Accepted => "accepted".to_owned(),
        Decision::Reject { reason } => format!("reject: {reason}"),
        Decision::Failed { .. } => "failed".to_owned(),
    }
}

fn style(decision: &Decision) -> Style {
    let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
    match decision {
        Decision::Best => colour(AnsiColor::Green),
        Decision::Failed { .. } => colour(AnsiColor::Red),
        Decision::Reject { .. } | Decision::Unfinished => Style::new().dimmed(),
        Decision::Baseline | Decision::Accepted => Style::new(),
    }
}

#[cfg(test)]
#[path = "portfolio_tests.rs"]
mod tests;
