//! Imports go downstairs: each program's modules stand on floors, and a module names only those on lower ones.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::{code_only, crate_modules};
use super::tree::Source;

/// The floors of one crate, the highest first; modules on one floor stand side by side.
#[derive(Debug, Clone, Copy)]
pub struct Floors {
    /// Folder of the crate's sources.
    pub sources: &'static str,
    /// Module names by floor.
    pub floors: &'static [&'static [&'static str]],
}

/// The worker: from its command line down to bytes.
pub const WORKER: Floors = Floors {
    sources: "worker/src/",
    floors: &[
        &["cli"],
        &["run"],
        &["probe"],
        &["evaluate", "export", "search"],
        &["quantize", "calibrate"],
        &["network"],
        &["ops", "comm"],
        &["tensor", "store", "tokens", "report", "libraries", "hub"],
    ],
};

/// The launcher: from its command line down to its settings.
pub const LAUNCHER: Floors = Floors {
    sources: "launcher/src/",
    floors: &[
        &["cli"],
        &["ui"],
        &["session"],
        &["engine", "search"],
        &["backend"],
        &["ship", "follow"],
        &["transport", "journal", "schedule", "store"],
        &["plan"],
        &["config"],
    ],
};

impl Floors {
    /// How far down a module stands.
    fn depth(&self, module: &str) -> Option<usize> {
        self.floors.iter().position(|floor| floor.contains(&module))
    }

    /// The top-level module that a file belongs to; `None` for the crate's root and for other crates.
    fn module<'a>(&self, path: &'a str) -> Option<&'a str> {
        let inside = path.strip_prefix(self.sources)?;
        let module = inside.split('/').next()?.trim_end_matches(".rs");
        (!["lib", "main"].contains(&module)).then_some(module)
    }
}

/// Files that reach upstairs, and modules that stand on no floor.
pub fn floor_faults(floors: &Floors, sources: &[Source]) -> Vec<String> {
    let mut faults = BTreeSet::new();
    for source in sources {
        let Some(module) = floors.module(&source.path) else {
            continue;
        };
        let Some(depth) = floors.depth(module) else {
            faults.insert(format!(
                "`{}{module}` stands on no floor; give it one in tests/src/house/floors.rs and docs/architecture.md",
                floors.sources
            ));
            continue;
        };
        for named in crate_modules(&code_only(&source.text)) {
            if floors.depth(&named).is_some_and(|other| other < depth) {
                faults.insert(format!(
                    "{} reaches upstairs to `{named}`; move what it needs down to `{module}` or below",
                    source.path
                ));
            }
        }
    }
    faults.into_iter().collect()
}

/// Pairs of modules on one floor that name each other.
pub fn sideways_faults(floors: &Floors, sources: &[Source]) -> Vec<String> {
    let mut names: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        if let Some(module) = floors.module(&source.path) {
            names.entry(module).or_default().extend(crate_modules(&code_only(&source.text)));
        }
    }
    let mut faults = Vec::new();
    for (module, named) in &names {
        for other in named.iter().filter(|other| module < &other.as_str()) {
            let same_floor = floors.depth(module) == floors.depth(other);
            if same_floor && names.get(other.as_str()).is_some_and(|back| back.contains(*module)) {
                faults.push(format!(
                    "`{module}` and `{other}` of {} name each other; move what they share one floor down",
                    floors.sources
                ));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn reaching_upstairs_is_found_and_downstairs_is_not() {
        let up = source("worker/src/tensor/file.rs", "use crate::network::Decoder;");
        let down = source("worker/src/network/decoder.rs", "use crate::tensor::File; // crate::cli");
        assert_eq!(floor_faults(&WORKER, &[up, down.clone()]).len(), 1);
        assert!(floor_faults(&WORKER, &[down]).is_empty());
    }

    #[test]
    fn a_module_without_a_floor_is_found() {
        let stray = source("worker/src/misc.rs", "");
        assert_eq!(floor_faults(&WORKER, &[stray]).len(), 1);
        assert!(floor_faults(&WORKER, &[source("worker/src/main.rs", "use crate::cli;")]).is_empty());
    }

    #[test]
    fn neighbours_that_name_each_other_are_found() {
        let one = source("worker/src/quantize/a.rs", "use crate::calibrate::Statistics;");
        let other = source("worker/src/calibrate/b.rs", "use crate::quantize::Codec;");
        assert!(sideways_faults(&WORKER, std::slice::from_ref(&one)).is_empty());
        assert_eq!(sideways_faults(&WORKER, &[one, other]).len(), 1);
    }
}
