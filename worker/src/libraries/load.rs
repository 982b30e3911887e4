//! Loading a library that may be missing or broken: what is wrong with it is an answer, not a crash.

use std::ffi::OsStr;
use std::mem::ManuallyDrop;
use std::path::PathBuf;

use libloading::Library;
use qlaunch_shared::{Error, Result};

use super::{Places, Wanted};

/// A loaded library.
#[derive(Debug)]
pub struct Loaded {
    /// Never unloaded: drivers leave threads behind that would run on into nothing.
    library: ManuallyDrop<Library>,
    /// Its file, where the system says which it took.
    pub path: Option<PathBuf>,
}

/// What became of a search.
#[derive(Debug)]
pub enum Search {
    /// It is loaded and has all that is needed of it.
    Found(Loaded),
    /// This host has none.
    Absent,
    /// There is one, and it is of no use.
    Broken(Error),
}

impl Loaded {
    /// One of its functions.
    ///
    /// # Errors
    /// It lacks the function.
    ///
    /// # Safety
    /// `F` must be the type of the function pointer.
    pub unsafe fn function<F: Copy>(&self, name: &str) -> Result<F> {
        // SAFETY: the caller answers for the type; a missing function is an error of `get`.
        let found = unsafe { self.library.get::<F>(name.as_bytes()) };
        found.map(|function| *function).map_err(|_| Error::input(format!("the library lacks `{name}`")))
    }
}

/// Searches for a library: the file that its variable names and no other, else wherever one may lie.
pub fn search(wanted: &Wanted, places: &Places) -> Search {
    if let Some(path) = places.named(wanted) {
        return match open(wanted, path.as_os_str()) {
            Opened::Fine(loaded) => Search::Found(loaded),
            Opened::Missing => Search::Broken(
                Error::input(format!("{} is not where `{}` says", wanted.name, wanted.variable))
                    .at(path)
                    .hint(format!("unset {}, or set it to the file", wanted.variable)),
            ),
            Opened::Faulty(error) => Search::Broken(error),
        };
    }
    let mut broken = None;
    let by_name = wanted.files.iter().map(|file| OsStr::new(file).to_owned());
    let by_path = places.candidates(wanted).into_iter().map(PathBuf::into_os_string);
    for file in by_name.chain(by_path) {
        match open(wanted, &file) {
            Opened::Fine(loaded) => return Search::Found(loaded),
            Opened::Missing => {}
            // Another one may do.
            Opened::Faulty(error) => broken = broken.or(Some(error)),
        }
    }
    broken.map_or(Search::Absent, Search::Broken)
}

/// A library that nothing goes without.
///
/// # Errors
/// It is missing or broken.
pub fn require(wanted: &Wanted, places: &Places) -> Result<Loaded> {
    match search(wanted, places) {
        Search::Found(loaded) => Ok(loaded),
        Search::Absent => Err(Error::input(format!("{} is not found", wanted.name)).hint(wanted.remedy)),
        Search::Broken(error) => Err(error),
    }
}

enum Opened {
    Fine(Loaded),
    Missing,
    Faulty(Error),
}

fn open(wanted: &Wanted, file: &OsStr) -> Opened {
    // SAFETY: what a library does when it is loaded is its own affair; these are the ones that every program on such a
    // host loads.
    let library = match unsafe { Library::new(file) } {
        Ok(library) => library,
        Err(error) => {
            let said = match std::error::Error::source(&error) {
                Some(source) => source.to_string(),
                None => error.to_string(),
            };
            // The system names the file that it did not find, which may be one that this one needs.
            let own = said.starts_with(&*file.to_string_lossy());
            if own && said.contains("No such file") {
                return Opened::Missing;
            }
            return Opened::Faulty(faulty(wanted, file, &format!("cannot be loaded: {said}")));
        }
    };
    let loaded = Loaded { library: ManuallyDrop::new(library), path: mapped(file) };
    for symbol in wanted.symbols {
        // SAFETY: the address is looked at and not called.
        if unsafe { loaded.library.get::<*const ()>(symbol.as_bytes()) }.is_err() {
            return Opened::Faulty(faulty(wanted, file, &format!("lacks `{symbol}`")));
        }
    }
    Opened::Fine(loaded)
}

fn faulty(wanted: &Wanted, file: &OsStr, what: &str) -> Error {
    let path = mapped(file).unwrap_or_else(|| PathBuf::from(file));
    Error::input(format!("{} {what}", wanted.name)).at(path).hint(wanted.remedy)
}

/// The file that the system took for a name, from the list of what is mapped.
fn mapped(file: &OsStr) -> Option<PathBuf> {
    let path = PathBuf::from(file);
    if path.is_absolute() {
        return Some(path);
    }
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    // A name with a version leads to a file with a longer one.
    let stem = file.to_string_lossy().into_owned();
    let paths = maps.lines().filter_map(|line| line.split_once('/').map(|(_, path)| format!("/{path}")));
    paths.map(PathBuf::from).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(stem.trim_end_matches(".1")))
    })
}
