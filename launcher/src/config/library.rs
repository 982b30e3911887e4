//! Where recipes are found: the project's, then the user's, then the built-in ones.

use qlaunch_shared::recipe::Library;

use super::Surroundings;

/// The recipe library of these surroundings.
pub fn library(around: &Surroundings) -> Library {
    let mut library = Library::embedded().working_in(&around.project);
    let folders = [around.user.as_deref(), Some(around.project.as_path())];
    for folder in folders.into_iter().flatten().map(|folder| folder.join("recipes")) {
        if folder.is_dir() {
            library = library.with_folder(folder);
        }
    }
    library
}
