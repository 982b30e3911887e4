//! Every version of every file format has a golden that must stay readable.

use super::imports::code_only;
use super::tree::Source;

/// A version constant in the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Top-level module that it stands in, which is the folder of its goldens.
    pub module: String,
    /// What the goldens are called: the constant's prefix in lower case, or empty for a plain `VERSION`.
    pub format: String,
    /// The newest version.
    pub newest: u32,
}

/// Every `pub const …VERSION: u32 = N;` of a file.
pub fn versions(source: &Source) -> Vec<Version> {
    let Some((_, inside)) = source.path.split_once("/src/") else {
        return Vec::new();
    };
    let module = inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs");
    let code = code_only(&source.text);
    let found = code.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("pub const ")?.split_once(": u32 = ")?;
        let format = name.strip_suffix("VERSION")?.trim_end_matches('_').to_lowercase();
        Some(Version { module: module.to_owned(), format, newest: value.trim_end_matches(';').parse().ok()? })
    });
    found.collect()
}

/// Versions for which no golden is among `files` (paths from the root): `tests/golden/<module>/<format>…-vN.<kind>`.
pub fn missing_goldens(versions: &[Version], files: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    for Version { module, format, newest } in versions {
        let folder = format!("tests/golden/{module}/");
        for version in 1..=*newest {
            let has = |file: &&String| {
                let name = file.strip_prefix(&folder).unwrap_or_default();
                name.starts_with(format.as_str()) && name.contains(&format!("-v{version}."))
            };
            if files.iter().find(has).is_none() {
                let name = if format.is_empty() { "<file>" } else { format };
                faults.push(format!(
                    "version {version} of `{module}` has no golden; add {folder}{name}-v{version}.*"
                ));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_without_a_golden_is_found() {
        let text = "pub const VERSION: u32 = 2;\npub const PORTFOLIO_VERSION: u32 = 1;\n";
        let found = versions(&Source { path: "shared/src/sweep/file.rs".into(), text: text.into() });
        assert_eq!(found.len(), 2);
        let files =
            ["tests/golden/sweep/sweep-v1.yaml", "tests/golden/sweep/portfolio-v1.json"].map(str::to_owned);
        assert_eq!(missing_goldens(&found, &files).len(), 1, "version 2 of the sweep has none");
        assert_eq!(missing_goldens(&found, &[]).len(), 3);
    }
}
