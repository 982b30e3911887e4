//! Where output goes: data to stdout, talk to stderr, colour and bars only where a person looks.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anstream::{AutoStream, ColorChoice};
use qlaunch_shared::{Error, Result};

/// What a person, or a program, reads.
pub struct Screen {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// Columns of the terminal; none where output is not a terminal's.
    pub width: Option<usize>,
    /// Whether bars can be drawn.
    pub live: bool,
    /// Whether stdout is for one JSON document.
    pub json: bool,
    /// Whether somebody can answer questions.
    pub answers: bool,
    /// The working folder, which paths are shown from.
    pub folder: PathBuf,
}

impl Screen {
    /// The process's own stdout and stderr. `NO_COLOR` and pipes switch colour off.
    pub fn of_process(json: bool) -> Self {
        let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
        let live = stderr.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let width = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        Self {
            out: Box::new(AutoStream::auto(stdout)),
            err: Box::new(AutoStream::auto(stderr)),
            width: width.filter(|width| *width > 0).or(columns),
            live,
            json,
            answers: std::io::stdin().is_terminal() && live,
            folder: std::env::current_dir().unwrap_or_default(),
        }
    }

    /// A screen that writes to buffers, for tests.
    pub fn to(out: Box<dyn Write>, err: Box<dyn Write>) -> Self {
        let (width, live, json, answers) = (None, false, false, false);
        Self { out, err, width, live, json, answers, folder: PathBuf::new() }
    }

    /// Writes what was asked for: to stdout, or to stderr where stdout is for JSON.
    ///
    /// # Errors
    /// A reader that is gone or a disk that is full.
    pub fn data(&mut self, text: &str) -> Result<()> {
        let out = if self.json { &mut self.err } else { &mut self.out };
        write_to(out, text)
    }

    /// Writes one JSON document to stdout.
    ///
    /// # Errors
    /// A reader that is gone or a disk that is full.
    pub fn document(&mut self, value: &impl serde::Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Error::bug(format!("cannot spell the result as JSON: {error}")))?;
        write_to(&mut self.out, &text)
    }

    /// Writes bytes as they are: what a program of somebody else printed.
    ///
    /// # Errors
    /// A reader that is gone or a disk that is full.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.out.write_all(bytes).and_then(|()| self.out.flush());
        written.map_err(|error| Error::io("write the output", Path::new("stdout"), &error))
    }

    /// Says something on stderr. A reader that is gone misses nothing that was asked for.
    pub fn say(&mut self, text: &str) {
        drop(write_to(&mut self.err, text));
    }

    /// Asks a question that is answered with yes or no; none where nobody can answer.
    pub fn ask(&mut self, question: &str) -> Option<bool> {
        if !self.answers {
            return None;
        }
        self.say(&format!("{question} [y/N]"));
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).ok()?;
        Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// A path as a person would type it here.
    pub fn path<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.folder).unwrap_or(path).display()
    }
}

fn write_to(writer: &mut Box<dyn Write>, text: &str) -> Result<()> {
    writeln!(writer, "{text}")
        .and_then(|()| writer.flush())
        .map_err(|error| Error::io("write the output", Path::new("stdout"), &error))
}

/// Colour as a person asked for it; used where bars bypass the streams.
pub fn coloured() -> bool {
    AutoStream::choice(&std::io::stderr()) != ColorChoice::Never
}
