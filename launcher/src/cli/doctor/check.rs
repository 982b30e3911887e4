//! One line of the report: what was looked at, what was found, and what to do.

use serde::Serialize;

/// How it stands with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It works.
    Ok,
    /// It is not there, and only some uses need it.
    Note,
    /// It does not work, and nothing goes without it.
    Fail,
}

impl Verdict {
    /// The word that a person sees.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Fail => "FAIL",
        }
    }
}

/// What was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is.
    pub name: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Check {
    /// Something that works.
    pub fn ok(name: &str, found: impl Into<String>) -> Self {
        Self { name: name.to_owned(), verdict: Verdict::Ok, found: found.into(), hint: None }
    }

    /// Something that only some uses need.
    pub fn note(name: &str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, hint: Some(hint.into()), ..Self::ok(name, found) }
    }

    /// Something that nothing goes without.
    pub fn fail(name: &str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, hint: Some(hint.into()), ..Self::ok(name, found) }
    }

    /// Its line, and its hint on the next one.
    pub fn lines(&self, width: usize) -> String {
        let line = format!("{:4}  {:width$}  {}", self.verdict.word(), self.name, self.found);
        match &self.hint {
            Some(hint) => format!("{line}\n{:4}  {:width$}  hint: {hint}", "", ""),
            None => line,
        }
    }
}
