//! What a test needs from its machine: a missing tool is said loudly, and is a failure where it must not be missing.

use std::io::Write;

/// The variable that CI sets: a lane whose tools are missing fails instead of being skipped.
pub const REQUIRE_REAL: &str = "QLAUNCH_REQUIRE_REAL";

/// Reports that `what` cannot be tested here; fails if this machine promised to have everything.
pub fn skip(what: &str, missing: &str) {
    let promised = std::env::var(REQUIRE_REAL).is_ok_and(|value| value == "1");
    assert!(!promised, "{what} cannot be tested without {missing}, and {REQUIRE_REAL}=1 forbids skipping it");
    note(what, missing);
}

/// Reports that `what` cannot be tested on this hardware, which no installation would change.
///
/// Test runners hide what a passing test prints, so the line also goes to the file that CI names in `QLAUNCH_SKIPS`.
pub fn note(what: &str, missing: &str) {
    let line = format!("SKIPPED: {what}: this machine lacks {missing}");
    eprintln!("{line}");
    let Some(path) = std::env::var_os("QLAUNCH_SKIPS") else {
        return;
    };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| writeln!(file, "{line}"))
        .expect("QLAUNCH_SKIPS names a file that can be written");
}
