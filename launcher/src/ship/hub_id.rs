//! Models and data of the Hub as people write them: `ORG/NAME[@REVISION]`, behind `hf:` where that could mean a folder.

use std::path::{Component, Path, PathBuf};

use qlaunch_shared::{Error, Result};

/// What stands before a name that means the Hub, whatever lies here.
const PREFIX: &str = "hf:";
/// What Hugging Face's own addresses have before the name of a data set.
const DATASETS: &str = "datasets";

/// How data files end.
const ENDINGS: [&str; 3] = [".jsonl", ".txt", ".npy"];

/// A model, or a file of a data set, on the Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubId {
    /// `ORG/NAME`.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// What is wanted of it.
    pub wanted: HubWanted,
}

/// What is wanted of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubWanted {
    /// A model.
    Model,
    /// A file of a data set; its only one if none is named.
    Data(Option<String>),
}

impl HubId {
    /// The model that a path means, if nothing lies there and it reads as one. `folder` stands before what was written.
    ///
    /// # Errors
    /// `hf:` before something that is no name.
    pub fn of_model(path: &Path, folder: &Path) -> Result<Option<Self>> {
        let Some(parts) = parts(path, folder) else { return Ok(None) };
        match (parts.named, &parts.words[..]) {
            (_, [organization, name]) if is_name(organization) && is_named(name) => {
                Ok(Some(Self::new(organization, name, HubWanted::Model)))
            }
            (true, _) => Err(refusal(path, "hf:ORG/NAME, hf:ORG/NAME@REVISION")),
            (false, _) => Ok(None),
        }
    }

    /// The file of a data set that a path means, if nothing lies there and it reads as one.
    ///
    /// # Errors
    /// `hf:` before something that is no name.
    pub fn of_data(path: &Path, folder: &Path) -> Result<Option<Self>> {
        let Some(parts) = parts(path, folder) else { return Ok(None) };
        let words = match &parts.words[..] {
            [first, rest @ ..] if parts.named && first == DATASETS => rest,
            words => words,
        };
        match words {
            // What ends like a data file is one that is not there.
            [_, name] if !parts.named && ENDINGS.iter().any(|ending| name.ends_with(ending)) => Ok(None),
            [organization, name, file @ ..] if is_name(organization) && is_named(name) => {
                let file = (!file.is_empty()).then(|| file.join("/"));
                Ok(Some(Self::new(organization, name, HubWanted::Data(file))))
            }
            _ if parts.named => Err(refusal(path, "hf:ORG/NAME/FILE, hf:ORG/NAME@REVISION/FILE")),
            _ => Ok(None),
        }
    }

    fn new(organization: &str, name: &str, wanted: HubWanted) -> Self {
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        Self { repository: format!("{organization}/{name}"), revision: revision.to_owned(), wanted }
    }

    /// Arguments of `qlaunch-worker download`.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![self.repository.clone(), format!("--revision={}", self.revision)];
        if let HubWanted::Data(file) = &self.wanted {
            arguments.push("--dataset".to_owned());
            arguments.extend(file.iter().map(|file| format!("--file={file}")));
        }
        arguments
    }
}

/// A name on the Hub and the commit that it meant when it was planned with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The name.
    pub id: HubId,
    /// The commit.
    pub commit: String,
}

impl std::fmt::Display for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        HubId { revision: self.commit.clone(), ..self.id.clone() }.fmt(f)
    }
}

impl std::fmt::Display for HubId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.repository, self.revision)?;
        match &self.wanted {
            HubWanted::Data(Some(file)) => write!(f, "/{file}"),
            _ => Ok(()),
        }
    }
}

/// A path that may mean the Hub, taken apart.
struct Parts {
    words: Vec<String>,
    /// Whether it says so itself.
    named: bool,
}

fn parts(path: &Path, folder: &Path) -> Option<Parts> {
    let words = |path: &Path| -> Option<Vec<String>> {
        let word = |part: Component<'_>| match part {
            Component::Normal(word) => word.to_str().map(str::to_owned),
            _ => None,
        };
        path.components().map(word).collect()
    };
    let behind: PathBuf = path.components().skip_while(|part| part.as_os_str() != PREFIX).skip(1).collect();
    if !behind.as_os_str().is_empty() {
        return Some(Parts { words: words(&behind)?, named: true });
    }
    // `hf:ORG/NAME` without slashes behind the colon.
    let glued = below(path, folder).and_then(words).and_then(|mut words| {
        let first = words.first_mut()?;
        *first = first.strip_prefix(PREFIX)?.to_owned();
        Some(words)
    });
    if let Some(words) = glued {
        return Some(Parts { words, named: true });
    }
    let words = words(below(path, folder)?)?;
    // A folder of that name here means that a path was meant, and mistyped.
    let is_path = path.exists() || folder.join(words.first()?).exists();
    (!is_path).then_some(Parts { words, named: false })
}

/// What of a path was written, behind the folder that it is taken from, which may be spelt in several ways.
fn below<'a>(path: &'a Path, folder: &Path) -> Option<&'a Path> {
    let real = |path: &Path| match path.as_os_str().is_empty() {
        true => Path::new(".").canonicalize().ok(),
        false => path.canonicalize().ok(),
    };
    let folder = real(folder)?;
    let above = path.ancestors().skip(1).find(|above| real(above).as_ref() == Some(&folder))?;
    path.strip_prefix(above).ok()
}

fn is_name(word: &str) -> bool {
    let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !word.is_empty() && !word.starts_with('.') && word.chars().all(right)
}

fn is_named(word: &str) -> bool {
    match word.split_once('@') {
        None => is_name(word),
        Some((name, revision)) => is_name(name) && !revision.is_empty(),
    }
}

fn refusal(path: &Path, forms: &str) -> Error {
    Error::input(format!("`{}` is no name on the Hub", path.display())).hint(format!("write it as {forms}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(path: &str) -> Option<String> {
        let work = tempfile::tempdir().unwrap();
        HubId::of_model(&work.path().join(path), work.path()).unwrap().map(|id| id.to_string())
    }

    fn data(path: &str) -> Option<String> {
        let work = tempfile::tempdir().unwrap();
        HubId::of_data(&work.path().join(path), work.path()).unwrap().map(|id| id.to_string())
    }

    #[test]
    fn names_on_the_hub_are_told_from_paths() {
        assert_eq!(model("org/na.me-1"), Some("org/na.me-1@main".to_owned()));
        assert_eq!(model("org/name@v1.0"), Some("org/name@v1.0".to_owned()));
        assert_eq!(model("hf://org/name@abc"), Some("org/name@abc".to_owned()));
        assert_eq!(model("hf:org/name"), Some("org/name@main".to_owned()));
        for path in ["name", "a/b/c", "../org/name", "org/na me", "org/name@", "/org/name", ".hidden/name"] {
            assert_eq!(model(path), None, "{path}");
        }
        assert_eq!(data("org/name/data/a.jsonl"), Some("org/name@main/data/a.jsonl".to_owned()));
        assert_eq!(data("hf://datasets/org/name@r/a.txt"), Some("org/name@r/a.txt".to_owned()));
        assert_eq!(data("org/name"), Some("org/name@main".to_owned()));
        assert_eq!(data("file.jsonl"), None);
        assert_eq!(data("texts/file.jsonl"), None, "a file that is not there");
        assert!(HubId::of_model(Path::new("hf://org"), Path::new("")).is_err());
    }

    #[test]
    fn what_lies_here_is_no_name_on_the_hub() {
        let work = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(work.path().join("models/tiny")).unwrap();
        let id = |path: &str| HubId::of_model(&work.path().join(path), work.path()).unwrap();
        assert_eq!(id("models/tiny"), None);
        assert_eq!(id("models/tyni"), None, "a mistyped path of a folder that is there");
        assert!(id("hf:models/tiny").is_some(), "unless it says so");
        assert!(id("other/tiny").is_some());
    }

    #[test]
    fn the_worker_is_told_in_arguments_what_is_wanted() {
        let id = HubId::of_data(Path::new("hf:org/name@r/a.txt"), Path::new("")).unwrap().unwrap();
        assert_eq!(id.arguments(), ["org/name", "--revision=r", "--dataset", "--file=a.txt"]);
        assert_eq!(Pinned { id, commit: "abc".to_owned() }.to_string(), "org/name@abc/a.txt");
    }
}
