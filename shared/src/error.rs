//! Errors as data: what failed, where, and a hint that is a command.
//!
//! One type serves both programs and travels between them inside `outcome.json`, so that a person sees the same
//! sentence whether the launcher or a worker three hosts away found the fault.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The result of anything that can fail in a way a person must understand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is; each has one exit code (`docs/exit-codes.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// A fault of ours: an invariant did not hold.
    Bug,
    /// The command line was not understood.
    Usage,
    /// A file, value or model that was handed in cannot be used.
    Input,
    /// A checkpoint did not pass a gate.
    Gate,
    /// Some candidates of a run failed.
    Candidates,
    /// A host could not be reached.
    Unreachable,
    /// A host wants a person to log in.
    Login,
    /// The scheduler refused the job.
    Refused,
    /// Somebody asked to stop.
    Interrupted,
    /// A worker stopped at a safe point and can be started again.
    Resumable,
}

impl ErrorKind {
    /// The process exit code that stands for this kind.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Bug => 1,
            Self::Usage => 2,
            Self::Input => 3,
            Self::Gate => 10,
            Self::Candidates => 11,
            Self::Unreachable => 20,
            Self::Login => 21,
            Self::Refused => 22,
            Self::Interrupted => 30,
            Self::Resumable => 85,
        }
    }
}

/// Where a failure was found. Lines and columns count from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file or folder at fault.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<PathBuf>,
    /// Line in the file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<usize>,
    /// Column in the line.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub column: Option<usize>,
    /// Dotted path of the key, or name of the tensor, at fault.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
}

/// A failure, with everything a person needs to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// What sort of failure it is.
    pub kind: ErrorKind,
    /// A lower-case sentence fragment without a final period; literal values stand in backticks.
    pub message: String,
    /// Where it was found.
    #[serde(default)]
    pub place: Box<Place>,
    /// What to do about it; a command whenever possible.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
}

impl Error {
    /// A failure of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: tame(message.into()), place: Box::default(), hint: None }
    }

    /// Something handed in cannot be used (exit code 3).
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Input, message)
    }

    /// The command line was not understood (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// An invariant of ours did not hold (exit code 1).
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Bug, message)
    }

    /// An operating-system error on a path, with a remedy for the common ones.
    pub fn io(action: &str, path: &Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let hint = match error.kind() {
            Io::NotFound => Some("check the path".to_owned()),
            Io::PermissionDenied => Some("check the permissions, or choose another folder".to_owned()),
            Io::StorageFull | Io::QuotaExceeded => {
                Some(format!("free some space (`df -h {}`), or choose another folder", path.display()))
            }
            Io::ReadOnlyFilesystem => Some("choose a folder that can be written".to_owned()),
            _ => None,
        };
        let mut failure = Self::input(format!("cannot {action}: {error}")).at(path);
        failure.hint = hint;
        failure
    }

    /// Names the file or folder at fault.
    #[must_use]
    pub fn at(mut self, file: impl AsRef<Path>) -> Self {
        self.place.file = Some(file.as_ref().to_path_buf());
        self
    }

    /// Names the line and column at fault, counted from 1.
    #[must_use]
    pub fn line(mut self, line: usize, column: usize) -> Self {
        self.place.line = Some(line);
        self.place.column = Some(column);
        self
    }

    /// Names the key or tensor at fault.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.place.key = Some(tame(key.into()));
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(tame(hint.into()));
        self
    }

    /// Puts the failed aim in front of the message: `could not read the sweep: …`.
    #[must_use]
    pub fn context(mut self, aim: impl fmt::Display) -> Self {
        self.message = format!("{aim}: {}", self.message);
        self
    }

    /// The process exit code that stands for this failure.
    pub const fn exit_code(&self) -> u8 {
        self.kind.exit_code()
    }
}

/// Longest text of an error, in characters: what a file says is quoted, and a file can say a megabyte.
const LONGEST: usize = 4096;

/// A text that a terminal can be shown: of its length a person can read, and without characters that act on terminals.
fn tame(text: String) -> String {
    // The directions of Unicode can make a line read as another one.
    let acts = |c: char| {
        c.is_control() && !matches!(c, '\n' | '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let length = if text.len() > LONGEST { text.chars().count() } else { 0 };
    if length <= LONGEST && !text.contains(acts) {
        return text;
    }
    let harmless = |c: char| match acts(c) {
        true => c.escape_unicode().to_string(),
        false => c.to_string(),
    };
    let left_out = length.saturating_sub(LONGEST);
    if left_out == 0 {
        return text.chars().map(harmless).collect();
    }
    // The reason often stands behind what is quoted.
    let start: String = text.chars().take(LONGEST / 2).map(harmless).collect();
    let end: String = text.chars().skip(length - LONGEST / 2).map(harmless).collect();
    format!("{start}… ({left_out} characters left out) …{end}")
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", tame(file.display().to_string()))?;
        }
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let (Some(_), Some(column)) = (self.line, self.column) {
            write!(f, ":{column}")?;
        }
        match (&self.key, self.file.is_some()) {
            (Some(key), true) => write!(f, " (`{}`)", tame(key.clone())),
            (Some(key), false) => write!(f, "`{}`", tame(key.clone())),
            (None, _) => Ok(()),
        }
    }
}

impl fmt::Display for Error {
    /// `message` / `  at file:line:column (key)` / `hint: …`, each on its own line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if *self.place != Place::default() {
            write!(f, "\n  at {}", self.place)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_message_place_and_hint() {
        let error = Error::input("unknown key `recipee`")
            .at("sweep.yaml")
            .line(3, 5)
            .key("candidates.0.recipee")
            .hint("did you mean `recipe`?");
        assert_eq!(
            error.to_string(),
            "unknown key `recipee`\n  at sweep.yaml:3:5 (`candidates.0.recipee`)\n\nhint: did you mean `recipe`?"
        );
        assert_eq!(error.exit_code(), 3);
    }

    #[test]
    fn a_megabyte_that_is_quoted_is_cut_in_its_middle() {
        let error = Error::input(format!("`{}` is not a number", "9".repeat(1 << 20)));
        assert!(error.message.starts_with("`999"), "{error}");
        assert!(error.message.contains("9… (1044498 characters left out) …9"), "{error}");
        assert!(error.message.ends_with("9` is not a number"), "{error}");
        assert!(error.message.len() < 2 * LONGEST);
        let short = "ü".repeat(LONGEST);
        assert_eq!(Error::input(short.clone()).message, short);
    }

    #[test]
    fn nothing_that_is_quoted_acts_on_a_terminal() {
        let error = Error::input("`\u{1b}[31mred`").key("a\u{202e}b").hint("two\nlines\r");
        let expected = "`\\u{1b}[31mred`\n  at `a\\u{202e}b`\n\nhint: two\nlines\\u{d}";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn survives_the_way_through_json() {
        let error = Error::bug("impossible").key("x");
        let text = serde_json::to_string(&error).unwrap();
        assert_eq!(serde_json::from_str::<Error>(&text).unwrap(), error);
    }
}
