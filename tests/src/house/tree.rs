//! The files of the repository.

use std::path::{Path, PathBuf};

/// A text file of the repository.
#[derive(Debug, Clone)]
pub struct Source {
    /// Path from the root, with forward slashes.
    pub path: String,
    /// What it says.
    pub text: String,
}

/// Folders that are made, not written.
fn is_made(name: &str) -> bool {
    name.starts_with("target") || [".git", "runs", "__pycache__", "node_modules"].contains(&name)
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|e| panic!("cannot list {}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !is_made(&name) {
            walk(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

/// Every file of the repository that is text and small enough to have been written by a person.
pub fn text_files(root: &Path) -> Vec<Source> {
    let mut paths = Vec::new();
    walk(root, &mut paths);
    paths.sort();
    paths
        .into_iter()
        .filter(|path| std::fs::metadata(path).is_ok_and(|metadata| metadata.len() < 1 << 20))
        .filter_map(|path| {
            let text = std::fs::read_to_string(&path).ok()?;
            let relative = path.strip_prefix(root).unwrap_or(&path);
            Some(Source { path: relative.to_string_lossy().into_owned(), text })
        })
        .collect()
}

/// Every Rust file of the repository.
pub fn rust_sources(root: &Path) -> Vec<Source> {
    text_files(root).into_iter().filter(|source| source.path.ends_with(".rs")).collect()
}

/// Paths that exist only where the project is written, and must not be needed anywhere else.
pub fn workplace_mentions(source: &Source) -> Vec<String> {
    // Spelt in two halves, so that this file does not find itself.
    let places = [concat!("/wo", "rk/"), concat!("../sha", "red/specs"), concat!("../sha", "red/oracle")];
    let more =
        [concat!("../sha", "red/models"), concat!("../sha", "red/clients"), concat!("../sha", "red/DESIGN")];
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| places.iter().chain(&more).any(|place| line.contains(place)))
        .map(|(at, _)| {
            format!(
                "{}:{} names a folder of the workplace; copy what it needs into the repository",
                source.path,
                at + 1
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_workplace_is_found_and_a_path_inside_the_repository_is_not() {
        let source = |text: &str| Source { path: "docs/a.md".into(), text: text.into() };
        assert_eq!(workplace_mentions(&source(concat!("see\n../sha", "red/specs/x.md"))).len(), 1);
        assert_eq!(workplace_mentions(&source("see ../shared/src/error.rs")).len(), 0);
    }
}
