//! Rules for one Rust file: it says its job, stays a room, and leaves nothing unfinished.

use super::imports::code_only;
use super::tree::Source;

/// No file is longer, unless it says why.
pub const LONGEST: usize = 500;

/// How a longer file says why, near its top.
const REASON: &str = "//! Over 500 lines: ";

/// Words that stand for work left undone; spelt in halves, so that this file does not find itself.
const UNFINISHED: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
];

/// Words that say nothing about a type's job.
const EMPTY_NAMES: [&str; 3] = ["Manager", "Helper", "Util"];

/// Every fault of one file.
pub fn file_faults(source: &Source) -> Vec<String> {
    let code = code_only(&source.text);
    let mut faults = Vec::new();
    if !source.text.starts_with("//! ") {
        faults.push(format!("{} does not open with `//!`; say its one job in a sentence", source.path));
    }
    let lines = source.text.lines().count();
    let excused =
        source.text.lines().take(12).any(|line| line.len() > REASON.len() && line.starts_with(REASON));
    if lines > LONGEST && !excused {
        faults.push(format!(
            "{} has {lines} lines; split it, move its tests to a sibling file, or write `{REASON}<reason>` at its top",
            source.path
        ));
    }
    faults.extend(unfinished(source));
    if code.contains(concat!("#[al", "low(")) || code.contains(concat!("#![al", "low(")) {
        faults
            .push(format!("{} silences a lint for good; use `#[expect(lint, reason = \"…\")]`", source.path));
    }
    faults.extend(empty_names(source, &code));
    if source.path.ends_with("/mod.rs") {
        faults.extend(defining_lines(&code).map(|line| {
            format!(
                "{} defines something (`{line}`); a mod.rs declares and re-exports: move it to a named file",
                source.path
            )
        }));
    }
    faults
}

fn unfinished(source: &Source) -> impl Iterator<Item = String> + '_ {
    source.text.lines().enumerate().filter_map(|(at, line)| {
        let word = UNFINISHED.iter().find(|word| line.contains(**word))?;
        Some(format!(
            "{}:{} says `{word}`; finish it, or file an issue and name its number",
            source.path,
            at + 1
        ))
    })
}

fn empty_names<'a>(source: &'a Source, code: &'a str) -> impl Iterator<Item = String> + 'a {
    code.lines().filter_map(|line| {
        let declared = ["struct ", "enum ", "trait "].iter().find_map(|word| line.split_once(word))?.1;
        let name: String = declared.chars().take_while(|c| c.is_alphanumeric()).collect();
        let empty = EMPTY_NAMES.iter().find(|word| name.contains(**word))?;
        Some(format!("{}: `{name}` calls itself a {empty}; name it after its job", source.path))
    })
}

/// Lines at the outermost level that define rather than declare. Constants may stay: they are part of the signpost.
fn defining_lines(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter(|line| {
        let bare = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub ")).unwrap_or(line);
        let bare =
            ["const ", "unsafe ", "async "].iter().fold(bare, |bare, word| match bare.strip_prefix(word) {
                Some(rest) if rest.starts_with("fn ") => rest,
                _ => bare,
            });
        ["fn ", "struct ", "enum ", "trait ", "impl ", "impl<", "macro_rules!"]
            .iter()
            .any(|word| bare.starts_with(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str) -> Vec<String> {
        file_faults(&Source { path: path.into(), text: text.into() })
    }

    #[test]
    fn a_file_without_a_sentence_about_itself_is_found() {
        assert_eq!(faults("a.rs", "use x;\n").len(), 1);
        assert!(faults("a.rs", "//! Its job.\nuse x;\n").is_empty());
    }

    #[test]
    fn a_long_file_is_found_unless_it_says_why() {
        let long = "fn f() {}\n".repeat(LONGEST);
        assert_eq!(faults("a.rs", &format!("//! Its job.\n{long}")).len(), 1);
        assert!(faults("a.rs", &format!("//! Its job.\n//!\n{REASON}one table.\n{long}")).is_empty());
        assert_eq!(
            faults("a.rs", &format!("//! Its job.\n{REASON}\n{long}")).len(),
            1,
            "an empty reason is none"
        );
    }

    #[test]
    fn unfinished_work_is_found_in_comments_too() {
        for word in UNFINISHED {
            assert_eq!(faults("a.rs", &format!("//! Its job.\n// {word} later\n")).len(), 1, "{word}");
        }
    }

    #[test]
    fn a_silenced_lint_is_found_and_an_expected_one_is_not() {
        assert_eq!(faults("a.rs", concat!("//! Its job.\n#[al", "low(dead_code)]\nfn f() {}\n")).len(), 1);
        assert!(faults("a.rs", "//! Its job.\n#[expect(dead_code, reason = \"…\")]\nfn f() {}\n").is_empty());
    }

    #[test]
    fn a_mod_file_that_defines_is_found() {
        for text in
            ["fn f() {}", "pub fn f() {}", "pub const fn f() {}", "struct S;", "impl S {}", "pub enum E {}"]
        {
            assert_eq!(faults("a/mod.rs", &format!("//! Its job.\n{text}\n")).len(), 1, "{text}");
            assert!(faults("a/b.rs", &format!("//! Its job.\n{text}\n")).is_empty(), "{text}");
        }
        assert!(
            faults("a/mod.rs", "//! Its job.\nmod b;\npub use b::S;\npub const N: u32 = 1;\n").is_empty()
        );
    }

    #[test]
    fn a_name_without_a_job_is_found() {
        assert_eq!(faults("a.rs", "//! Its job.\npub struct JobManager {}\n").len(), 1);
        assert!(faults("a.rs", "//! Its job.\npub struct Journal {}\n").is_empty());
    }
}
