//! A step of `qlaunch cluster check`: its name, its verdict, what was found, and what to do.

use qlaunch_shared::Error;

/// How one step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Pass,
    /// Jobs run, but a person should know.
    Note,
    /// Jobs do not run.
    Fail,
}

/// A step.
pub struct Step {
    /// What was looked at.
    pub name: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What was found.
    pub text: String,
    /// What to do.
    pub hint: Option<String>,
}

/// A step that found something.
pub fn step(name: &'static str, verdict: Verdict, text: impl Into<String>) -> Step {
    Step { name, verdict, text: text.into(), hint: None }
}

/// A step that failed.
pub fn failed(name: &'static str, error: &Error) -> Step {
    Step { name, verdict: Verdict::Fail, text: error.message.clone(), hint: error.hint.clone() }
}

/// The word that people and programs read.
pub const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "ok",
        Verdict::Note => "note",
        Verdict::Fail => "FAIL",
    }
}

impl Step {
    /// The same step with something to do.
    pub fn hinted(self, hint: &str) -> Self {
        Self { hint: Some(hint.to_owned()), ..self }
    }
}
