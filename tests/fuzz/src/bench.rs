//! A working folder whose files are cut from one text, so that a fuzzer can write recipes that import one another.

use std::path::Path;

use qlaunch_shared::recipe::Library;

/// A line of five equals signs ends one file and starts the next.
const CUT: &str = "\n=====\n";

/// The files of the folder, in the order in which a text is cut.
const FILES: [&str; 5] = ["r.yaml", "a.yaml", "b.yml", "d/recipe.yaml", "d/quantize.yml"];

/// A temporary folder in memory where the machine has such a place.
#[derive(Debug)]
pub struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// An empty folder.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let folder = folder.expect("a temporary folder can be made");
        std::fs::create_dir(folder.path().join("d")).expect("a folder in it as well");
        Self { folder }
    }

    /// Cuts a text into the files of the folder, and removes those that it does not reach; gives back the lines that
    /// are left of the text.
    pub fn lay_out(&self, text: &str) -> Vec<String> {
        let mut parts = text.split(CUT);
        for file in FILES {
            match parts.next() {
                Some(part) => self.write(file, part),
                None => drop(std::fs::remove_file(self.folder.path().join(file))),
            }
        }
        parts.next().map_or_else(Vec::new, |rest| rest.lines().map(str::to_owned).collect())
    }

    /// Whether a text reached this file.
    pub fn has(&self, file: &str) -> bool {
        self.folder.path().join(file).is_file()
    }

    /// Writes one file.
    pub fn write(&self, file: &str, text: &str) {
        std::fs::write(self.folder.path().join(file), text).expect("the temporary folder can be written to");
    }

    /// The embedded library, seen from the folder.
    pub fn library(&self) -> Library {
        Library::embedded().working_in(self.folder.path())
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}
