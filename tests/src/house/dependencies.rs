//! Rules for Cargo.toml files: who may depend on what, and that each dependency has a reason.

/// Names of the dependencies in one table of a Cargo.toml, such as `[dependencies]`.
fn table<'a>(manifest: &'a str, header: &str) -> Vec<&'a str> {
    let inside = manifest.lines().map(str::trim).skip_while(|line| *line != header).skip(1);
    inside
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.trim().trim_end_matches(".workspace")))
        .collect()
}

/// Dependencies of a crate that it must not have.
pub fn unwanted(path: &str, manifest: &str, forbidden: &[&str]) -> Vec<String> {
    let tables = ["[dependencies]", "[dev-dependencies]", "[build-dependencies]"];
    let named = tables.iter().flat_map(|header| table(manifest, header));
    named
        .filter(|name| forbidden.contains(name))
        .map(|name| {
            format!("{path} depends on `{name}`, which this side of the house must not know; remove it")
        })
        .collect()
}

/// Dependencies of the workspace without a line in the page that says why they are there, and lines without one.
pub fn undocumented(manifest: &str, page: &str) -> Vec<String> {
    let used: Vec<&str> = table(manifest, "[workspace.dependencies]")
        .into_iter()
        .filter(|name| !name.starts_with("qlaunch"))
        .collect();
    let explained: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .filter(|(_, reason)| reason.trim_matches([' ', '|']).len() > 10)
        .map(|(name, _)| name)
        .collect();
    let missing = used.iter().filter(|name| !explained.contains(name)).map(|name| {
        format!(
            "`{name}` has no reason; add a line \"| `{name}` | why |\" to docs/dependencies.md, or drop it"
        )
    });
    let stale = explained.iter().filter(|name| !used.contains(name)).map(|name| {
        format!("docs/dependencies.md explains `{name}`, which no Cargo.toml names; remove the line")
    });
    missing.chain(stale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"x\"\n\n[dependencies]\ntokio = \"1\"\nserde.workspace = true\n\n\
                            [workspace.dependencies]\n# Why.\nserde = { version = \"1\" }\nqlaunch-shared = \"1\"\n";

    #[test]
    fn a_forbidden_dependency_is_found_in_either_spelling() {
        assert_eq!(unwanted("a", MANIFEST, &["tokio", "serde", "clap"]).len(), 2);
        assert!(unwanted("a", MANIFEST, &["clap"]).is_empty());
    }

    #[test]
    fn a_dependency_without_a_reason_and_a_reason_without_a_dependency_are_found() {
        let page = "| crate | why |\n|---|---|\n| `serde` | reads and writes every file format |\n";
        assert!(undocumented(MANIFEST, page).is_empty());
        assert_eq!(undocumented(MANIFEST, "").len(), 1);
        assert_eq!(undocumented(MANIFEST, "| `serde` | |\n").len(), 1, "an empty reason is none");
        assert_eq!(undocumented(MANIFEST, &format!("{page}| `left-pad` | pads on the left |\n")).len(), 1);
    }
}
