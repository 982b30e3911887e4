//! The model card: `README.md` of a checkpoint, for people and for model hubs, made from its quality report.

use super::{FILE, Measured, Quality, SOURCE_CARD};
use crate::audit::engines::Answer;

/// Modules that are shown with their errors.
const SHOWN: usize = 8;

/// The card of a checkpoint; `keeps_source` says that the source's own card lies beside it.
pub fn card(quality: &Quality, keeps_source: bool) -> String {
    let mut text = front_matter(quality);
    let source = &quality.recorded.source.name;
    text.push_str(&format!(
        "\n# {source}, quantized: {}\n\n`{source}` with the recipe `{}`, made by {} {}. `{FILE}` has every figure.\n",
        formats(quality).join(", "),
        quality.recorded.recipe.name,
        quality.recorded.tool.name,
        quality.recorded.tool.version,
    ));
    let sections = [
        figures(quality),
        engines(quality),
        making(quality),
        modules(quality),
        experts(quality),
        gaps(quality),
        terms(quality, keeps_source),
    ];
    for section in sections.into_iter().flatten() {
        text.push('\n');
        text.push_str(&section);
    }
    text
}

/// Numerics of weights and inputs, the most frequent first.
fn formats(quality: &Quality) -> Vec<String> {
    let mut counted: Vec<(String, usize)> = Vec::new();
    for module in &quality.modules {
        let name = match &module.input {
            Some(input) if *input != module.weight => format!("{} × {input}", module.weight),
            Some(_) => module.weight.clone(),
            None => format!("{} weights", module.weight),
        };
        match counted.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counted.push((name, 1)),
        }
    }
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counted.into_iter().map(|(name, _)| name).collect()
}

fn front_matter(quality: &Quality) -> String {
    let licence = &quality.recorded.licence;
    let mut lines = vec![
        format!("base_model: {}", plain(&quality.recorded.source.name)),
        "base_model_relation: quantized".to_owned(),
    ];
    let terms = [
        ("license", &licence.license),
        ("license_name", &licence.license_name),
        ("license_link", &licence.license_link),
    ];
    lines.extend(
        terms.into_iter().filter_map(|(key, value)| Some(format!("{key}: {}", plain(value.as_ref()?)))),
    );
    lines.push("tags:".to_owned());
    lines.extend(["qlaunch", "quantized", "modelopt"].map(|tag| format!("- {tag}")));
    lines.push("quantization:".to_owned());
    lines.push(format!("  recipe: {}", plain(&quality.recorded.recipe.name)));
    lines.push(format!("  assignment: {}", plain(&quality.recorded.assignment)));
    format!("---\n{}\n---\n", lines.join("\n"))
}

/// A text as a YAML scalar: quoted unless nothing in it could mean anything else.
fn plain(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-');
    let begins = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    let keyword = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if begins && text.chars().all(is_word) && !keyword.contains(&text.to_lowercase().as_str()) {
        return text.to_owned();
    }
    // JSON's quoted strings are YAML's.
    serde_json::Value::from(text).to_string()
}

fn figures(quality: &Quality) -> Option<String> {
    let totals = &quality.totals;
    let mut rows = vec![
        (
            "size".to_owned(),
            format!("{:.2} MB, {:.2}× of the source", totals.bytes as f64 / 1e6, totals.ratio),
        ),
        ("bits per weight".to_owned(), format!("{:.2}", totals.effective_bits)),
        ("read per token".to_owned(), format!("{:.2} MB", totals.active_bytes_per_token as f64 / 1e6)),
    ];
    if let Some(Measured { data, evaluation }) = &quality.measured {
        let name = data.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let figure = match evaluation.reference_perplexity {
            Some(before) => {
                let change = 100.0 * (evaluation.perplexity / before - 1.0);
                format!("{:.4}, {before:.4} before ({change:+.2}%)", evaluation.perplexity)
            }
            None => format!("{:.4}", evaluation.perplexity),
        };
        rows.push((format!("perplexity on `{name}`, {} tokens", evaluation.tokens), figure));
        if let Some(divergence) = evaluation.kl_mean {
            rows.push(("KL divergence from the source".to_owned(), format!("{divergence:.6} nats a token")));
        }
    }
    let rows: Vec<String> =
        rows.into_iter().map(|(what, figure)| format!("| {what} | {figure} |\n")).collect();
    let not_measured = if quality.measured.is_none() { "\nIts perplexity was not measured.\n" } else { "" };
    Some(format!("## Figures\n\n| | |\n|---|---|\n{}{not_measured}", rows.concat()))
}

fn engines(quality: &Quality) -> Option<String> {
    let row = |verdict: &crate::audit::engines::EngineVerdict| {
        let answer = match &verdict.answer {
            Answer::Loads => "loads it".to_owned(),
            Answer::Refuses { rule, evidence } => format!("does not: {rule} ({})", evidence.join("; ")),
            Answer::Unknown { why } => format!("not known: {why}"),
        };
        format!("| {} | {} |\n", verdict.named(), answer.replace('|', "\\|"))
    };
    let rows: String = quality.engines.iter().map(row).collect();
    Some(format!(
        "## Engines\n\nBy the rules of their loaders, read in these versions; kernels of a GPU are another matter.\n\n| engine | |\n|---|---|\n{rows}"
    ))
}

fn making(quality: &Quality) -> Option<String> {
    let recorded = &quality.recorded;
    let calibration = match &recorded.calibration {
        Some(seen) => format!(
            "{} samples, {} tokens of `{}` (SHA-256 of the token ids `{}`)",
            seen.samples,
            seen.tokens,
            seen.data.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            seen.tokens_sha256
        ),
        None => "none: the recipe needs no activations".to_owned(),
    };
    Some(format!(
        "## How it was made\n\n- source: `{}`, SHA-256 `{}` of {}\n- recipe: `{}`, assignment `{}`\n- calibration: {calibration}\n- {} {}, numeric path `{}`\n",
        recorded.source.name,
        recorded.source.sha256,
        recorded.source.digest_of,
        recorded.recipe.name,
        recorded.assignment,
        recorded.tool.name,
        recorded.tool.version,
        recorded.tool.numeric_path
    ))
}

fn modules(quality: &Quality) -> Option<String> {
    let mut worst: Vec<_> = quality.modules.iter().filter(|module| module.weight_error.is_some()).collect();
    if worst.is_empty() {
        return None;
    }
    worst.sort_by(|a, b| b.weight_error.unwrap_or(0.0).total_cmp(&a.weight_error.unwrap_or(0.0)));
    let figure = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3e}"));
    let rows: String = worst
        .iter()
        .take(SHOWN)
        .map(|module| {
            format!(
                "| `{}` | {} | {} | {} |\n",
                module.name,
                module.weight,
                figure(module.weight_error),
                figure(module.output_error)
            )
        })
        .collect();
    Some(format!(
        "## Largest errors\n\nRelative squared errors, of weights and of outputs on the calibration data, {} of {} linears.\n\n| linear | weight | weight error | output error |\n|---|---|---|---|\n{rows}",
        worst.len().min(SHOWN),
        quality.modules.len()
    ))
}

fn experts(quality: &Quality) -> Option<String> {
    let experts = quality.experts.as_ref()?;
    let count: usize = experts.layers.iter().map(|(_, tokens)| tokens.len()).sum();
    let mut text =
        format!("## Experts\n\nOf {count} experts, {} saw no token in calibration.\n", experts.silent.len());
    for silent in experts.silent.iter().take(SHOWN) {
        text.push_str(&format!("- layer {}, expert {}: {}\n", silent.layer, silent.expert, silent.policy));
    }
    if experts.silent.len() > SHOWN {
        text.push_str(&format!("- and {} more, in `{FILE}`\n", experts.silent.len() - SHOWN));
    }
    Some(text)
}

fn gaps(quality: &Quality) -> Option<String> {
    let all: Vec<_> = quality.fallbacks().collect();
    if all.is_empty() {
        return None;
    }
    let lines: String = all
        .iter()
        .take(SHOWN)
        .map(|(name, remark)| format!("- `{name}`: {} ({})\n", remark.value, remark.algorithm))
        .collect();
    let hidden = all.len().saturating_sub(SHOWN);
    let more = if hidden > 0 { format!("- and {hidden} more, in `{FILE}`\n") } else { String::new() };
    Some(format!("## Fallbacks\n\nWhat could not be done as the recipe asks.\n\n{lines}{more}"))
}

fn terms(quality: &Quality, keeps_source: bool) -> Option<String> {
    let licence = &quality.recorded.licence;
    let stated = licence.license_name.as_ref().or(licence.license.as_ref());
    let mut text = match stated {
        Some(name) => format!("## Licence\n\n{name}, as the source states it."),
        None => "## Licence\n\nThe source states none: ask its authors.".to_owned(),
    };
    if !licence.files.is_empty() {
        text.push_str(&format!(
            " Its files: {}.",
            licence.files.iter().map(|file| format!("`{file}`")).collect::<Vec<_>>().join(", ")
        ));
    }
    if keeps_source {
        text.push_str(&format!(" The source's card is `{SOURCE_CARD}`."));
    }
    text.push('\n');
    Some(text)
}
