//! Any patterns against any names: the answers of a slow matcher that follows CPython, and no pattern that takes long.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qlaunch_fuzz::reference::fits;
use qlaunch_shared::recipe::{Patterns, fnmatch};

/// Longest text that the slow matcher is asked about.
const SHORT: usize = 512;

fuzz_target!(|text: &str| {
    // Patterns above the first empty line, names below.
    let (patterns, names) = text.split_once("\n\n").unwrap_or((text, ""));
    let patterns: Vec<&str> = patterns.split('\n').take(8).collect();
    let names: Vec<&str> = names.split('\n').take(16).collect();
    if text.len() <= SHORT {
        assert_agreed(&patterns, &names);
    }
    for pattern in &patterns {
        stretch(pattern, names[0]);
    }
});

fn assert_agreed(patterns: &[&str], names: &[&str]) {
    let mut all = Patterns::new(patterns.iter().copied());
    for name in names {
        let expected: Vec<usize> = (0..patterns.len()).filter(|&index| fits(name, patterns[index])).collect();
        for (index, pattern) in patterns.iter().enumerate() {
            assert_eq!(fnmatch(name, pattern), expected.contains(&index), "{name:?} against {pattern:?}");
        }
        assert_eq!(all.look(name).fits, expected, "{name:?} against {patterns:?}");
    }
}

/// Repeats pattern and name: a matcher that tries all ways to cut a name would not come back within libFuzzer's limit.
fn stretch(pattern: &str, name: &str) {
    const PATTERN: usize = 256;
    const NAME: usize = 4096;
    if pattern.len() > PATTERN || name.len() > PATTERN || name.is_empty() {
        return;
    }
    let pattern = pattern.repeat((PATTERN / pattern.len().max(1)).max(1));
    let name = name.repeat(NAME / name.len());
    // Against a name that almost fits, and against one that fits up to a last character that no pattern expects.
    let _ = fnmatch(&name, &pattern);
    let _ = fnmatch(&format!("{name}\u{7}"), &pattern);
}
