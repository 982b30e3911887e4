//! Who names whom: the crates and top-level modules that a Rust file reaches for.

use std::collections::BTreeSet;

/// The code alone: comments and string literals blanked, lines kept.
pub fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let taken = skipped_length(rest, out.chars().next_back());
        if taken == 0 {
            out.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            out.extend(rest[..taken].chars().filter(|c| *c == '\n'));
            rest = &rest[taken..];
        }
    }
    out
}

/// Bytes of the comment or literal that starts here; 0 if none does.
fn skipped_length(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if let Some(raw) = rest.strip_prefix('r').filter(|_| !in_word) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = 1 + hashes + 1;
            return rest[body..].find(&close).map_or(rest.len(), |end| body + end + close.len());
        }
    }
    if rest.starts_with('"') {
        return quoted_length(rest, '"');
    }
    // A character literal, not a lifetime: the quote closes after one character or an escape.
    let mut characters = rest.chars();
    if characters.next() == Some('\'') {
        match (characters.next(), characters.next()) {
            (Some('\\'), _) => return quoted_length(rest, '\''),
            (Some(one), Some('\'')) => return 2 + one.len_utf8(),
            _ => {}
        }
    }
    0
}

/// Bytes up to and with the closing quote of a literal with escapes.
fn quoted_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if !escaped && c == quote {
            return at + 1;
        }
        escaped = !escaped && c == '\\';
    }
    rest.len()
}

/// First names after each `crate::`, groups in braces taken apart.
pub fn crate_modules(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_heads(group)),
            None => found.extend(first_name(rest)),
        }
    }
    found
}

/// The leading identifier.
fn first_name(text: &str) -> Option<String> {
    let name: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The leading identifier of each entry of a `use` group, up to its closing brace.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut start) = (0usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                heads.extend(first_name(&group[start..at]));
                return heads;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.extend(first_name(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    heads
}

/// Which of these crates the code names in a path.
pub fn foreign_imports<'a>(code: &str, crates: &[&'a str]) -> Vec<&'a str> {
    let names = |name: &str| {
        code.match_indices(name).any(|(at, _)| {
            let before = code[..at].chars().next_back();
            let after = &code[at + name.len()..];
            let whole = !before.is_some_and(|c| c.is_alphanumeric() || "_:.".contains(c));
            let used = code[..at].trim_end().ends_with("use");
            whole && (after.starts_with("::") || (used && after.starts_with([';', ' '])))
        })
    };
    crates.iter().copied().filter(|name| names(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "use crate::a; // crate::b\n/* crate::c */ \"crate::d \\\" crate::e\" r#\"crate::f\"# '\"' 'x' &'a str";
        assert_eq!(crate_modules(&code_only(text)), ["a".to_owned()].into());
        assert_eq!(code_only("a\n// b\nc").lines().count(), 3, "line numbers stay");
    }

    #[test]
    fn groups_are_taken_apart() {
        let code = "use crate::{a::{b, c}, d, e::f};\nlet x = crate::g::h();\nuse other_crate::i;\npub(crate) fn f() {}";
        let expected = ["a", "d", "e", "g"].map(str::to_owned);
        assert_eq!(crate_modules(code), expected.into());
    }

    #[test]
    fn a_crate_is_found_by_whole_name_only() {
        let crates = ["tokio", "clap"];
        assert_eq!(foreign_imports("use tokio::fs;", &crates), ["tokio"]);
        assert_eq!(foreign_imports("let x: clap::Error;", &crates), ["clap"]);
        assert_eq!(
            foreign_imports("use my_tokio::fs; self.clap::<u8>(); let clapper = 1;", &crates),
            [""; 0]
        );
    }
}
