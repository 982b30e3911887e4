//! Files and commands of a host over SSH, each by one small script.

use std::path::Path;
use std::time::Duration;

use qlaunch_shared::{Error, ErrorKind, Result};

use super::contract::{Chunk, CommandOutput, DEADLINE, Transport, Wanted};
use super::frames::{Answer, READ, chunks};
use super::ssh::{Question, Ssh};

/// A file comes whole or not at all: an upload that ends early is shorter than announced.
const WRITE: &str = r#"
mkdir -p -- "$(dirname -- "$1")" && part="$1.partial.$$" || exit 1
umask 077
cat > "$part" && [ "$(wc -c < "$part")" -eq "$2" ] && chmod "$3" "$part" && mv -f -- "$part" "$1" || { rm -f -- "$part"; exit 1; }
"#;

const APPEND: &str = r#"
mkdir -p -- "$(dirname -- "$1")" || exit 1
there=$(wc -c < "$1" 2>/dev/null || echo 0)
if [ "$there" -eq "$2" ]; then cat >> "$1" || exit 1; else cat > /dev/null; fi
wc -c < "$1"
"#;

/// How often something that can be done twice is tried again at once after a lost link.
const AGAIN: usize = 1;

impl Ssh {
    /// Asks something that can be asked twice.
    async fn ask_again(&self, question: Question<'_>) -> Result<(Answer, String)> {
        let mut tries = 0;
        loop {
            match self.ask(question).await {
                Err(error) if error.kind == ErrorKind::Unreachable && tries < AGAIN => tries += 1,
                result => return result,
            }
        }
    }

    async fn done(&self, action: &str, path: &Path, question: Question<'_>) -> Result<Answer> {
        let (answer, stderr) = self.ask_again(question).await?;
        match answer.code {
            0 => Ok(answer),
            _ => Err(fault(action, path, &stderr, &self.way.cluster)),
        }
    }
}

/// What a command of the host complained of, with a remedy for the common things.
fn fault(action: &str, path: &Path, stderr: &str, cluster: &str) -> Error {
    let why = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given").trim();
    let error = Error::input(format!("cannot {action} on `{cluster}`: {why}")).at(path);
    let hint = match why {
        why if why.contains("No space left") || why.contains("quota") => {
            format!("free some space there, or set another `workspace`: `qlaunch cluster show {cluster}`")
        }
        why if why.contains("Permission denied") || why.contains("Read-only") => {
            format!("set `workspace` to a folder that can be written: `qlaunch cluster show {cluster}`")
        }
        _ => format!("look at it: `qlaunch cluster check {cluster}`"),
    };
    error.hint(hint)
}

fn question<'a>(script: &'a str, arguments: &'a [&'a str]) -> Question<'a> {
    Question { deadline: DEADLINE, script, arguments, input: &[] }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl Transport for Ssh {
    async fn read_many(&self, wanted: &[Wanted]) -> Result<Vec<Option<Chunk>>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let arguments: Vec<String> = wanted
            .iter()
            .flat_map(|piece| [text(&piece.path), piece.from.to_string(), piece.limit.to_string()])
            .collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        for _ in 0..3 {
            let (answer, _) = self.ask_again(question(READ, &arguments)).await?;
            // Files that shrink while they are read are read again.
            if let Some(chunks) = chunks(&answer.body, wanted.len()) {
                return Ok(chunks);
            }
        }
        let error = Error::new(ErrorKind::Unreachable, "files change faster than they can be read");
        Err(error.at(wanted.first().map(|piece| piece.path.clone()).unwrap_or_default()))
    }

    async fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let arguments = [&*text(path), &bytes.len().to_string(), "644"];
        let question = Question { input: bytes, ..question(WRITE, &arguments) };
        self.done("write", path, question).await.map(drop)
    }

    async fn write_private(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let arguments = [&*text(path), &bytes.len().to_string(), "600"];
        let question = Question { input: bytes, ..question(WRITE, &arguments) };
        self.done("write", path, question).await.map(drop)
    }

    async fn append(&self, path: &Path, size: u64, bytes: &[u8]) -> Result<u64> {
        let arguments = [&*text(path), &size.to_string()];
        // Not asked twice: what a lost link left of it is told by the file's size.
        let asked = Question { input: bytes, deadline: DEADLINE * 5, ..question(APPEND, &arguments) };
        let (answer, stderr) = self.ask(asked).await?;
        let there = String::from_utf8_lossy(&answer.body).trim().parse().ok().filter(|_| answer.code == 0);
        there.ok_or_else(|| fault("write", path, &stderr, &self.way.cluster))
    }

    async fn make_folder(&self, path: &Path) -> Result<()> {
        let asked = [&*text(path)];
        self.done("make the folder", path, question("mkdir -p -- \"$1\"", &asked)).await.map(drop)
    }

    async fn exists(&self, path: &Path) -> Result<bool> {
        let asked = [&*text(path)];
        let (answer, _) = self.ask_again(question("[ -e \"$1\" ]", &asked)).await?;
        Ok(answer.code == 0)
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        // Done before a link was lost and asked again: the source is gone and the target is there. Two names of one
        // file are what a job script leaves that published its result itself.
        let script = r#"
if [ "$1" -ef "$2" ]; then rm -f -- "$1"; elif [ -e "$1" ]; then mv -fT -- "$1" "$2"; else [ -e "$2" ]; fi
"#;
        let asked = [&*text(from), &*text(to)];
        self.done(&format!("move to {}", to.display()), from, question(script, &asked)).await.map(drop)
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        let asked = [&*text(path)];
        self.done("remove", path, question("rm -rf -- \"$1\"", &asked)).await.map(drop)
    }

    async fn shell_within(
        &self,
        deadline: Duration,
        script: &str,
        arguments: &[&str],
    ) -> Result<CommandOutput> {
        let (answer, stderr) = self.ask(Question { deadline, script, arguments, input: &[] }).await?;
        let stdout = String::from_utf8_lossy(&answer.body).into_owned();
        Ok(CommandOutput { code: Some(answer.code), stdout, stderr })
    }
}
