//! What `qlaunch recipe check` found, for people and for programs.

use qlaunch_shared::Error;
use qlaunch_shared::assign::Plan;
use qlaunch_shared::protocol::Level;
use qlaunch_shared::recipe::Examination;
use serde::Serialize;

use super::{coverage, error, note, warnings};

/// Everything that was found.
#[derive(Debug, Serialize)]
pub struct RecipeReport {
    /// Name or path of the file.
    pub recipe: String,
    /// What it defines; none where too much is wrong to tell.
    #[serde(rename = "type")]
    pub kind: Option<&'static str>,
    /// What keeps it from being used.
    pub errors: Vec<Error>,
    /// What a person should look at.
    pub warnings: Vec<Error>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// What it does to the model, if one was named and nothing stands in the way.
    pub plan: Option<Plan>,
}

impl RecipeReport {
    /// What the file alone tells.
    pub fn new(examination: &Examination) -> Self {
        Self {
            recipe: examination.name.clone(),
            kind: examination.kind.map(|kind| kind.name()),
            errors: examination.errors.clone(),
            warnings: examination.warnings.iter().map(Error::input).collect(),
            notes: examination.renamed.iter().map(ToString::to_string).collect(),
            plan: None,
        }
    }
}

/// A paragraph for each finding, then the sum in one line.
pub fn show(report: &RecipeReport) -> String {
    let mut paragraphs: Vec<String> = report.errors.iter().map(error).collect();
    paragraphs.extend(report.warnings.iter().map(|warning| note(Level::Warning, &warning.to_string())));
    paragraphs.extend(report.plan.iter().flat_map(warnings));
    paragraphs.extend(report.notes.iter().map(|text| note(Level::Info, text)));
    let mut sum = format!(
        "{}{}: {}, {}",
        report.recipe,
        report.kind.map_or(String::new(), |kind| format!(" ({kind})")),
        number(report.errors.len(), "error"),
        number(report.warnings.len(), "warning"),
    );
    if let Some(plan) = report.plan.as_ref().filter(|_| report.errors.is_empty()) {
        sum.push_str(&format!("\n{}", coverage(plan)));
    }
    paragraphs.push(sum);
    paragraphs.join("\n\n")
}

fn number(count: usize, word: &str) -> String {
    match count {
        0 => format!("no {word}s"),
        1 => format!("1 {word}"),
        more => format!("{more} {word}s"),
    }
}
