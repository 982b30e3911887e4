//! Where recipes and their snippets are found: the embedded library, folders that go before it, and the disk.
//!
//! ModelOpt looks for recipes in its library first and for imported snippets on the disk first; both orders are kept.

use std::collections::{BTreeSet, VecDeque};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use include_dir::{Dir, DirEntry, include_dir};

use crate::yaml::MAX_BYTES;
use crate::{Error, Result};

static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../recipes");

/// Suffixes that a name may leave out.
const SUFFIXES: [&str; 2] = [".yml", ".yaml"];

/// The recipes that can be named.
#[derive(Debug, Clone)]
pub struct Library {
    folders: Vec<PathBuf>,
    working_folder: PathBuf,
}

/// A file or folder that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    /// A path of the embedded library.
    Embedded(String),
    /// A path below a library folder, with the name it has there.
    Folder { path: PathBuf, name: String },
    /// A path on the disk.
    Disk(PathBuf),
}

impl Library {
    /// The library that is embedded in the program.
    pub const fn embedded() -> Self {
        Self { folders: Vec::new(), working_folder: PathBuf::new() }
    }

    /// Puts a folder before everything that was there so far.
    #[must_use]
    pub fn with_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folders.insert(0, folder.into());
        self
    }

    /// Says what relative paths are relative to; the process's own working folder if never said.
    #[must_use]
    pub fn working_in(mut self, folder: impl Into<PathBuf>) -> Self {
        self.working_folder = folder.into();
        self
    }

    /// Finds a recipe: in the library as given and with either suffix, then the same on the disk.
    pub(super) fn find_recipe(&self, name: &str) -> Option<Location> {
        let spellings = spellings(name, &["", SUFFIXES[0], SUFFIXES[1]]);
        let usable = |location: &Location| location.is_file() || location.is_recipe_folder();
        self.find_in_library(name)
            .or_else(|| spellings.iter().map(|spelling| self.on_disk(spelling)).find(usable))
    }

    /// Finds a file of the library by its name without suffix.
    pub(super) fn find_in_library(&self, name: &str) -> Option<Location> {
        spellings(name, &["", SUFFIXES[0], SUFFIXES[1]])
            .iter()
            .filter_map(|spelling| self.in_library(spelling))
            .find(|location| location.is_file() || location.is_recipe_folder())
    }

    /// Finds a snippet or configuration: with either suffix on the disk, then in the library.
    ///
    /// # Errors
    /// No such file; the message lists where it was looked for.
    pub(super) fn find_config(&self, name: &str) -> Result<Location> {
        let spellings = spellings(name, &SUFFIXES);
        let on_disk = spellings.iter().map(|spelling| self.on_disk(spelling));
        let in_library = spellings.iter().filter_map(|spelling| self.in_library(spelling));
        on_disk.chain(in_library).find(Location::is_file).ok_or_else(|| {
            let looked: Vec<String> = spellings
                .iter()
                .map(|spelling| format!("`{}`", self.on_disk(spelling).path().display()))
                .collect();
            Error::input(format!(
                "there is no file `{name}`: looked for {} and in the library",
                looked.join(", ")
            ))
        })
    }

    fn on_disk(&self, name: &str) -> Location {
        Location::Disk(self.working_folder.join(name))
    }

    /// Library folders in order, then the embedded library; absolute paths are in none of them.
    fn in_library(&self, name: &str) -> Option<Location> {
        if Path::new(name).is_absolute() {
            return None;
        }
        let in_folder = self.folders.iter().find_map(|folder| {
            let location = Location::Folder { path: folder.join(name), name: name.to_owned() };
            (location.is_file() || location.is_recipe_folder()).then_some(location)
        });
        in_folder.or_else(|| EMBEDDED.get_entry(name).map(|_| Location::Embedded(name.to_owned())))
    }

    /// Names without suffix of all files of the library, sorted.
    pub fn names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        embedded_names(&EMBEDDED, &mut names);
        for folder in &self.folders {
            folder_names(folder, &mut names);
        }
        names
    }

    /// Base names without suffix of the files directly in a folder of the library.
    pub(super) fn names_under(&self, folder: &str) -> Vec<String> {
        let inside = |name: &String| {
            let base = name.strip_prefix(folder)?.strip_prefix('/')?;
            (!base.contains('/')).then(|| base.to_owned())
        };
        self.names().iter().filter_map(inside).collect()
    }
}

fn spellings(name: &str, suffixes: &[&str]) -> Vec<String> {
    match SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
        true => vec![name.to_owned()],
        false => suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect(),
    }
}

fn without_suffix(path: &str) -> Option<&str> {
    SUFFIXES.iter().find_map(|suffix| path.strip_suffix(suffix))
}

fn embedded_names(dir: &Dir<'_>, names: &mut BTreeSet<String>) {
    for entry in dir.entries() {
        match entry {
            DirEntry::Dir(dir) => embedded_names(dir, names),
            DirEntry::File(file) => {
                names.extend(file.path().to_str().and_then(without_suffix).map(str::to_owned));
            }
        }
    }
}

/// A walk through a library folder that sees each folder once, however many links lead there.
#[derive(Default)]
struct Walk {
    /// The folders seen so far, as they are called without links.
    seen: BTreeSet<PathBuf>,
    /// Folders behind links, with the names they have: what lies in the library itself is listed first.
    links: VecDeque<(PathBuf, String)>,
    /// How many files and folders were looked at.
    entries: usize,
}

/// More files and folders than any library has: whoever links a whole disk into a library gets no list of it.
const MOST_ENTRIES: usize = 20_000;

fn folder_names(folder: &Path, names: &mut BTreeSet<String>) {
    let mut walk = Walk::default();
    walk.links.push_back((folder.to_path_buf(), String::new()));
    while let Some((folder, prefix)) = walk.links.pop_front() {
        walk.folder(&folder, &prefix, names);
    }
}

impl Walk {
    fn folder(&mut self, folder: &Path, prefix: &str, names: &mut BTreeSet<String>) {
        let (Ok(place), Ok(entries)) = (folder.canonicalize(), std::fs::read_dir(folder)) else {
            return;
        };
        if !self.seen.insert(place) {
            return;
        }
        let left = MOST_ENTRIES.saturating_sub(self.entries);
        let mut paths: Vec<PathBuf> = entries.take(left).flatten().map(|entry| entry.path()).collect();
        paths.sort();
        self.entries += paths.len();
        for path in paths {
            let Some(base) = path.file_name().and_then(|base| base.to_str()) else {
                continue;
            };
            let name = if prefix.is_empty() { base.to_owned() } else { format!("{prefix}/{base}") };
            if path.is_file() {
                names.extend(without_suffix(&name).map(str::to_owned));
            } else if path.is_symlink() {
                self.links.push_back((path, name));
            } else if path.is_dir() {
                self.folder(&path, &name, names);
            }
        }
    }
}

impl Location {
    /// Whether it is a file that can be read.
    pub fn is_file(&self) -> bool {
        match self {
            Self::Embedded(name) => EMBEDDED.get_file(name).is_some(),
            Self::Folder { path, .. } | Self::Disk(path) => path.is_file(),
        }
    }

    /// Whether it is a folder that holds a recipe in parts.
    pub fn is_recipe_folder(&self) -> bool {
        ["metadata", "recipe"].iter().any(|part| self.part(part).is_some())
    }

    /// The file of a recipe folder with this base name.
    pub fn part(&self, base: &str) -> Option<Self> {
        SUFFIXES.iter().map(|suffix| self.join(&format!("{base}{suffix}"))).find(Self::is_file)
    }

    fn join(&self, file: &str) -> Self {
        match self {
            Self::Embedded(name) => Self::Embedded(format!("{name}/{file}")),
            Self::Folder { path, name } => {
                Self::Folder { path: path.join(file), name: format!("{name}/{file}") }
            }
            Self::Disk(path) => Self::Disk(path.join(file)),
        }
    }

    /// Its text.
    ///
    /// # Errors
    /// It cannot be read, is too large, or is not UTF-8.
    pub fn read(&self) -> Result<String> {
        let path = match self {
            Self::Embedded(name) => {
                let text = EMBEDDED.get_file(name).and_then(include_dir::File::contents_utf8);
                return text
                    .map(str::to_owned)
                    .ok_or_else(|| Error::bug(format!("`{name}` is not embedded")));
            }
            Self::Folder { path, .. } | Self::Disk(path) => path,
        };
        let unreadable = |error: std::io::Error| Error::io("read the file", path, &error);
        let file = std::fs::File::open(path).map_err(unreadable)?;
        // The size is not asked for: files of `/proc` have none, and others can grow.
        let mut bytes = Vec::new();
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() > MAX_BYTES {
            let message = format!("the file holds more than the {MAX_BYTES} bytes of YAML allowed");
            return Err(Error::input(message).at(path).hint("keep large data in files of its own"));
        }
        String::from_utf8(bytes)
            .map_err(|_| Error::input("the file is not UTF-8 text").at(path).hint("save it as UTF-8"))
    }

    /// A key that is the same for all spellings of one file.
    pub fn identity(&self) -> String {
        match self {
            Self::Embedded(name) => format!("<library>/{name}"),
            Self::Folder { path, .. } | Self::Disk(path) => {
                path.canonicalize().unwrap_or_else(|_| path.clone()).display().to_string()
            }
        }
    }

    /// The path for messages; embedded files stand below `<library>`.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Embedded(name) => Path::new("<library>").join(name),
            Self::Folder { path, .. } | Self::Disk(path) => path.clone(),
        }
    }

    /// The name in the library without suffix, or the path.
    pub fn name(&self) -> String {
        match self {
            Self::Embedded(name) | Self::Folder { name, .. } => {
                without_suffix(name).unwrap_or(name).to_owned()
            }
            Self::Disk(path) => path.display().to_string(),
        }
    }

    /// Whether it belongs to a library.
    pub const fn is_library(&self) -> bool {
        matches!(self, Self::Embedded(_) | Self::Folder { .. })
    }
}
