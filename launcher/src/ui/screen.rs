//! Where output goes: data to stdout, talk to stderr, colour and bars only where a person looks.

use std::io::{ErrorKind, IsTerminal, Write};
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
    /// Whether whoever read stdout has read enough, as `head` does. Nothing is wrong then, and nothing more is written.
    pub left: bool,
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
            left: false,
        }
    }

    /// A screen that writes to buffers, for tests.
    pub fn to(out: Box<dyn Write>, err: Box<dyn Write>) -> Self {
        let (width, live, json, answers) = (None, false, false, false);
        Self { out, err, width, live, json, answers, folder: PathBuf::new(), left: false }
    }

    /// Writes what was asked for: to stdout, or to stderr where stdout is for JSON.
    ///
    /// # Errors
    /// A disk that is full.
    pub fn data(&mut self, text: &str) -> Result<()> {
        match self.json {
            // A reader of talk that is gone misses nothing that was asked for.
            true => {
                self.say(text);
                Ok(())
            }
            false => self.raw(format!("{text}\n").as_bytes()),
        }
    }

    /// Writes one JSON document to stdout.
    ///
    /// # Errors
    /// A disk that is full.
    pub fn document(&mut self, value: &impl serde::Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Error::bug(format!("cannot spell the result as JSON: {error}")))?;
        self.raw(format!("{text}\n").as_bytes())
    }

    /// Writes bytes as they are: what a program of somebody else printed.
    ///
    /// # Errors
    /// A disk that is full.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        if self.left {
            return Ok(());
        }
        match self.out.write_all(bytes).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.left = true;
                Ok(())
            }
            written => written.map_err(|error| Error::io("write the output", Path::new("stdout"), &error)),
        }
    }

    /// Says something on stderr. A reader that is gone misses nothing that was asked for.
    pub fn say(&mut self, text: &str) {
        drop(writeln!(self.err, "{text}").and_then(|()| self.err.flush()));
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

/// Colour as a person asked for it; used where bars bypass the streams.
pub fn coloured() -> bool {
    AutoStream::choice(&std::io::stderr()) != ColorChoice::Never
}
