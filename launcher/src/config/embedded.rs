//! The cluster profiles and job templates that are built into the program, and the files that override them.

use std::fs;
use std::path::PathBuf;

use include_dir::{Dir, include_dir};
use qlaunch_shared::yaml::did_you_mean;
use qlaunch_shared::{Error, Result};

use super::Surroundings;

static CLUSTERS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../clusters");
static TEMPLATES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../templates");

/// The text of a built-in cluster profile.
pub(super) fn cluster(name: &str) -> Option<&'static str> {
    CLUSTERS.get_file(format!("{name}.toml"))?.contents_utf8()
}

/// Names of the built-in cluster profiles.
pub(super) fn cluster_names() -> Vec<&'static str> {
    CLUSTERS.files().filter_map(|file| file.path().file_stem()?.to_str()).collect()
}

/// Names of the built-in job templates.
pub fn template_names() -> Vec<&'static str> {
    TEMPLATES.files().filter_map(|file| file.path().to_str()).collect()
}

/// The text of a job template and where it came from: the project's, the user's, or the built-in one.
///
/// # Errors
/// A template that is nowhere, or a file that cannot be read.
pub fn template(name: &str, around: &Surroundings) -> Result<(String, PathBuf)> {
    let folders = [Some(around.project.as_path()), around.user.as_deref()];
    for folder in folders.into_iter().flatten() {
        let path = folder.join("templates").join(name);
        if path.is_file() {
            let text =
                fs::read_to_string(&path).map_err(|error| Error::io("read the template", &path, &error))?;
            return Ok((text, path));
        }
    }
    match TEMPLATES.get_file(name).and_then(|file| file.contents_utf8()) {
        Some(text) => Ok((text.to_owned(), PathBuf::from(format!("<built in>/templates/{name}")))),
        None => Err(Error::input(format!("there is no job template `{name}`"))
            .hint(did_you_mean(name, &template_names()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_profile_and_its_template_are_built_in() {
        assert!(cluster("local").unwrap().contains("kind = \"local\""));
        let around = Surroundings::default();
        assert!(template("local.sh.j2", &around).unwrap().0.starts_with("#!/bin/sh"));
        let refusal = template("lokal.sh.j2", &around).unwrap_err();
        assert_eq!(refusal.hint.as_deref(), Some("did you mean `local.sh.j2`?"));
    }

    #[test]
    fn a_projects_template_comes_before_the_built_in_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("templates")).unwrap();
        fs::write(folder.path().join("templates/local.sh.j2"), "mine").unwrap();
        let around = Surroundings { project: folder.path().to_owned(), ..Surroundings::default() };
        assert_eq!(template("local.sh.j2", &around).unwrap().0, "mine");
    }
}
