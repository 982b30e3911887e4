//! What a test needs from its machine: a missing tool is said loudly, and is a failure where it must not be missing.

/// The variable that CI sets: a lane whose tools are missing fails instead of being skipped.
pub const REQUIRE_REAL: &str = "QLAUNCH_REQUIRE_REAL";

/// Reports that `what` cannot be tested here; fails if this machine promised to have everything.
pub fn skip(what: &str, missing: &str) {
    let promised = std::env::var(REQUIRE_REAL).is_ok_and(|value| value == "1");
    assert!(
        !promised,
        "{what} cannot be tested without {missing}, and {REQUIRE_REAL}=1 forbids skipping it"
    );
    note(what, missing);
}

/// Reports that `what` cannot be tested on this hardware, which no installation would change.
pub fn note(what: &str, missing: &str) {
    eprintln!("SKIPPED: {what}: this machine lacks {missing}");
}
