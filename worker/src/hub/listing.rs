//! What a repository of the Hub has, and what of it a job needs. Names and digests become paths, so each is looked at first.

use std::collections::BTreeSet;

use qlaunch_shared::checkpoint::{INDEX, SINGLE};
use qlaunch_shared::{Error, ErrorKind, Result};
use serde::Deserialize;

/// Endings of files beside the weights that a model is used with.
const BESIDE: [&str; 6] = ["json", "jinja", "model", "txt", "tiktoken", "py"];
/// Endings of data files that can be read.
const DATA: [&str; 3] = ["jsonl", "txt", "npy"];

/// Which sort of repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model.
    Model,
    /// A data set, of which one file is wanted.
    Dataset,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Which sort of repository.
    pub kind: Kind,
    /// `ORG/NAME`.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// The file of a data set; its only data file if none.
    pub file: Option<String>,
}

/// A file of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Path in the repository.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// What its content must be; also its name in the cache.
    pub digest: Digest,
}

/// The digest of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Digest {
    /// SHA-256 of the content: large files.
    Sha256(String),
    /// git's name of the content: small files.
    Git(String),
}

impl Digest {
    /// Its hexadecimal digits.
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Git(hex) => hex,
        }
    }
}

/// A commit of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The commit.
    pub commit: String,
    /// Its files.
    pub files: Vec<Listed>,
}

/// The Hub's own words.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    sha256: String,
    size: u64,
}

impl Asked {
    /// Something to ask for.
    ///
    /// # Errors
    /// A name that no repository, revision or file has.
    pub fn of(kind: Kind, repository: &str, revision: &str, file: Option<String>) -> Result<Self> {
        let (organization, name) = repository.split_once('/').unwrap_or_default();
        let plain = |word: &str| {
            let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            !word.is_empty() && word.chars().all(right) && !word.starts_with('.') && !word.contains("--")
        };
        if !plain(organization) || !plain(name) {
            return Err(Error::input(format!("`{repository}` is no repository of the Hub"))
                .hint("write `ORG/NAME`, and a revision behind `@`"));
        }
        if !is_inner(revision) || file.as_deref().is_some_and(|file| !is_inner(file)) {
            return Err(Error::input(format!("`{revision}` of `{repository}` cannot be asked for"))
                .hint("write a branch, a tag or a commit behind `@`"));
        }
        Ok(Self { kind, repository: repository.to_owned(), revision: revision.to_owned(), file })
    }

    /// Where the Hub lists the files.
    pub fn listing(&self) -> String {
        let kind = match self.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        };
        format!("/api/{kind}/{}/revision/{}?blobs=true", self.repository, encoded(&self.revision))
    }

    /// Where a file of a commit lies on the Hub.
    pub fn file(&self, commit: &str, name: &str) -> String {
        let kind = match self.kind {
            Kind::Model => "",
            Kind::Dataset => "/datasets",
        };
        let name: Vec<String> = name.split('/').map(encoded).collect();
        format!("{kind}/{}/resolve/{commit}/{}", self.repository, name.join("/"))
    }
}

impl Listing {
    /// Reads the Hub's answer.
    ///
    /// # Errors
    /// An answer that is none, or names that would lead out of the cache.
    pub fn read(text: &[u8], asked: &Asked) -> Result<Self> {
        let fault = |what: String| {
            Error::new(ErrorKind::Unreachable, format!("the Hub's list of `{}` {what}", asked.repository))
                .hint("check HF_ENDPOINT")
        };
        let answer: Answer =
            serde_json::from_slice(text).map_err(|error| fault(format!("cannot be read: {error}")))?;
        if !is_hex(&answer.sha, 40) {
            return Err(fault(format!("has no commit: `{}`", answer.sha)));
        }
        let mut files = Vec::new();
        for file in answer.siblings {
            if !is_inner(&file.rfilename) {
                return Err(fault(format!("has a file that lies elsewhere: `{}`", file.rfilename)));
            }
            let (size, digest) = match (file.lfs, file.size, file.blob_id) {
                (Some(large), ..) if is_hex(&large.sha256, 64) => (large.size, Digest::Sha256(large.sha256)),
                (None, Some(size), Some(blob)) if is_hex(&blob, 40) => (size, Digest::Git(blob)),
                _ => return Err(fault(format!("does not say what `{}` holds", file.rfilename))),
            };
            files.push(Listed { name: file.rfilename, size, digest });
        }
        Ok(Self { commit: answer.sha, files })
    }

    /// The file of this name.
    pub fn find(&self, name: &str) -> Option<&Listed> {
        self.files.iter().find(|file| file.name == name)
    }

    /// The files of a model: weights by the index where there is one, and what lies beside them.
    ///
    /// # Errors
    /// No weights that can be read.
    pub fn model(&self, index: Option<&BTreeSet<String>>, asked: &Asked) -> Result<Vec<&Listed>> {
        let weights = match index {
            Some(names) => names.iter().map(|name| self.find(name).ok_or(name)).collect(),
            None => self
                .find(SINGLE)
                .map(|file| vec![file])
                .ok_or(&SINGLE.to_owned())
                .map_err(|_| &asked.repository),
        };
        let weights: Vec<&Listed> = weights.map_err(|missing: &String| {
            let message = if index.is_some() {
                format!("the index of `{}` names `{missing}`, which is not there", asked.repository)
            } else {
                format!("`{}` has no safetensors weights: no `{SINGLE}` and no `{INDEX}`", asked.repository)
            };
            Error::input(message).hint("choose a repository or a revision with safetensors weights")
        })?;
        let beside = self.files.iter().filter(|file| {
            let ending = file.name.rsplit_once('.').map_or("", |(_, ending)| ending);
            let words = ["LICENSE", "NOTICE", "README.md"].iter().any(|word| file.name.starts_with(word));
            !file.name.contains('/') && (BESIDE.contains(&ending) || words)
        });
        Ok(weights.into_iter().chain(beside).collect())
    }

    /// The one data file of a data set.
    ///
    /// # Errors
    /// None, or several and nobody said which.
    pub fn data(&self, asked: &Asked) -> Result<&Listed> {
        let readable =
            |file: &&Listed| file.name.rsplit_once('.').is_some_and(|(_, ending)| DATA.contains(&ending));
        let names = || self.files.iter().filter(readable).map(|file| file.name.as_str()).take(20);
        let list = || names().collect::<Vec<_>>().join("`, `");
        let repository = &asked.repository;
        match &asked.file {
            Some(name) => self.find(name).ok_or_else(|| {
                Error::input(format!("the data set `{repository}` has no `{name}`"))
                    .hint(format!("it has `{}`", list()))
            }),
            None => match names().collect::<Vec<_>>()[..] {
                [only] => self.find(only).ok_or_else(|| Error::bug("a file was lost")),
                [] => Err(Error::input(format!("the data set `{repository}` has no .jsonl, .txt or .npy"))
                    .hint("write its text into a .jsonl with `text`, and name that")),
                _ => Err(Error::input(format!("the data set `{repository}` has several data files"))
                    .hint(format!("name one behind a slash: `{}`", list()))),
            },
        }
    }
}

/// Whether a path stays below where it begins.
fn is_inner(path: &str) -> bool {
    !path.contains(['\\', '\0']) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// One part of an address, whatever is in it.
fn encoded(part: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    part.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
