//! The house rules hold for the whole tree.

use qlaunch_tests::house::{self, Source};
use qlaunch_tests::places::root;

/// Fails with one fault a line.
#[track_caller]
fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("cannot read {path}: {e}"))
}

/// Rust sources of one crate.
fn sources_of(folder: &str) -> Vec<Source> {
    let all = house::rust_sources(&root());
    let own: Vec<Source> = all.into_iter().filter(|source| source.path.starts_with(folder)).collect();
    assert!(!own.is_empty(), "no sources under {folder}");
    own
}

#[test]
fn every_rust_file_says_its_job_and_keeps_to_its_size() {
    let faults: Vec<String> = house::rust_sources(&root()).iter().flat_map(house::file_faults).collect();
    assert_none(&faults);
}

#[test]
fn shared_knows_neither_program_and_neither_runtime_nor_terminal() {
    let manifest = ["qlaunch", "qlaunch-worker", "tokio", "clap", "cudarc", "indicatif", "anstream", "rayon"];
    assert_none(&house::unwanted("shared/Cargo.toml", &read("shared/Cargo.toml"), &manifest));
    let crates = ["qlaunch", "qlaunch_worker", "tokio", "clap", "cudarc", "indicatif", "anstream", "rayon"];
    assert_none(&foreign("shared/src/", &crates));
}

#[test]
fn launcher_and_worker_meet_in_files_only() {
    assert_none(&house::unwanted("launcher/Cargo.toml", &read("launcher/Cargo.toml"), &["qlaunch-worker"]));
    assert_none(&house::unwanted(
        "worker/Cargo.toml",
        &read("worker/Cargo.toml"),
        &["qlaunch", "tokio", "indicatif"],
    ));
    assert_none(&foreign("launcher/", &["qlaunch_worker"]));
    assert_none(&foreign("worker/", &["qlaunch", "tokio", "indicatif"]));
}

/// Files of a crate that name one of these crates.
fn foreign(folder: &str, crates: &[&str]) -> Vec<String> {
    let naming = |source: &Source| {
        let named = house::foreign_imports(&house::code_only(&source.text), crates);
        (!named.is_empty())
            .then(|| format!("{} names {named:?}; let both meet in `shared` instead", source.path))
    };
    sources_of(folder).iter().filter_map(naming).collect()
}

#[test]
fn the_worker_imports_downstairs_only() {
    assert_none(&house::floor_faults(&house::WORKER, &sources_of("worker/src/")));
    assert_none(&house::sideways_faults(&house::WORKER, &sources_of("worker/src/")));
}

#[test]
fn the_launcher_imports_downstairs_only() {
    assert_none(&house::floor_faults(&house::LAUNCHER, &sources_of("launcher/src/")));
    assert_none(&house::sideways_faults(&house::LAUNCHER, &sources_of("launcher/src/")));
}

#[test]
fn every_dependency_has_a_reason() {
    assert_none(&house::undocumented(&read("Cargo.toml"), &read("docs/dependencies.md")));
}

#[test]
fn every_file_format_version_has_its_golden() {
    let versions: Vec<_> = house::rust_sources(&root()).iter().flat_map(house::versions).collect();
    assert!(!versions.is_empty(), "no version constant was found; the rule would check nothing");
    let files: Vec<String> = house::text_files(&root()).into_iter().map(|file| file.path).collect();
    assert_none(&house::missing_goldens(&versions, &files));
}

#[test]
fn nothing_needs_the_place_where_it_was_written() {
    let faults: Vec<String> = house::text_files(&root()).iter().flat_map(house::workplace_mentions).collect();
    assert_none(&faults);
}

#[test]
fn the_exit_codes_of_the_page_are_those_of_the_code() {
    let page = read("docs/exit-codes.md");
    let code = read("shared/src/error.rs");
    let body = code.split_once("fn exit_code(self) -> u8 {").expect("the table of exit codes").1;
    let codes: Vec<&str> = body
        .lines()
        .take_while(|line| line.trim() != "}" || !line.starts_with("    }"))
        .filter_map(|line| line.trim().strip_suffix(',')?.split_once("=> ").map(|(_, number)| number))
        .collect();
    assert!(codes.len() >= 10, "only {codes:?} were found in shared/src/error.rs");
    for number in codes {
        assert!(
            page.contains(&format!("| {number} |")),
            "docs/exit-codes.md has no line for exit code {number}"
        );
    }
}
