//! Tests of the matcher against an independent, slow one and against answers of Python's own.

use proptest::prelude::*;

use super::*;

/// The definition, read off Python's documentation: exponential, but obvious.
fn by_definition(name: &[char], pattern: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', rest @ ..] => (0..=name.len()).any(|skipped| by_definition(&name[skipped..], rest)),
        ['?', rest @ ..] => !name.is_empty() && by_definition(&name[1..], rest),
        ['[', rest @ ..] => match closing_bracket(rest, 0) {
            Some(end) => {
                name.first().is_some_and(|c| set(&rest[..end]).fits(*c))
                    && by_definition(&name[1..], &rest[end + 1..])
            }
            None => name.first() == Some(&'[') && by_definition(&name[1..], rest),
        },
        [c, rest @ ..] => name.first() == Some(c) && by_definition(&name[1..], rest),
    }
}

proptest! {
    #[test]
    fn agrees_with_the_definition(name in "[ab.\\]\\[-]{0,8}", pattern in "[ab.*?\\[\\]!-]{0,7}") {
        let (n, p): (Vec<char>, Vec<char>) = (name.chars().collect(), pattern.chars().collect());
        prop_assert_eq!(fnmatch(&name, &pattern), by_definition(&n, &p));
    }

    #[test]
    fn every_name_fits_itself_and_a_star(name in "[a-z_.0-9]{0,40}") {
        prop_assert!(fnmatch(&name, &name));
        prop_assert!(fnmatch(&name, "*"));
        let with_star = format!("*{name}");
        prop_assert!(fnmatch(&name, &with_star));
    }

    #[test]
    fn no_text_makes_it_panic(name in "\\PC{0,20}", pattern in "\\PC{0,20}") {
        let _ = fnmatch(&name, &pattern);
    }
}

#[test]
fn a_star_crosses_dots() {
    assert!(fnmatch("model.layers.0.mlp.up_proj.weight_quantizer", "*mlp*weight_quantizer"));
    assert!(fnmatch("model.layers.0.self_attn.k_bmm_quantizer", "*[kv]_bmm_quantizer"));
    assert!(!fnmatch("model.layers.0.self_attn.q_bmm_quantizer", "*[kv]_bmm_quantizer"));
}

#[test]
fn a_pattern_covers_the_whole_name() {
    assert!(!fnmatch("model.mtp.0.weight_quantizer", "mtp.*"));
    assert!(fnmatch("mtp.0.weight_quantizer", "mtp.*"));
    assert!(!fnmatch("weight_quantizers", "*weight_quantizer"));
    assert!(!fnmatch("ab", "ab*b"));
}

#[test]
fn case_matters() {
    assert!(!fnmatch("LM_HEAD", "lm_head"));
}

/// Answers of CPython 3.11's `fnmatch.fnmatchcase`.
#[test]
fn sets_are_pythons() {
    for (name, pattern, fits) in [
        ("]", "[]]", true),
        ("a", "[!]]", true),
        ("]", "[!]]", false),
        ("[", "[", true),
        ("[a", "[a", true),
        ("-", "[a-]", true),
        ("-", "[-a]", true),
        ("b", "[a-c]", true),
        ("b", "[c-a]", false),
        ("x", "[!c-a]", true),
        ("-", "[a-c-e]", true),
        ("d", "[a-c-e]", false),
        ("e", "[a-c-e]", true),
        ("c", "[a--c]", true),
        ("a", "[a--c]", false),
        ("^", "[^a]", true),
        ("a", "[^a]", true),
        ("!", "[a!]", true),
        ("a", "[b-a!x]", true),
        ("x", "[b-a!x]", false),
        ("p", "[b-a!-z]", true),
        ("-", "[b-a!-z]", false),
        ("-", "[b-a!-!]", false),
        ("!", "[b-a!-!]", false),
        ("x", "[b-a!-!]", true),
        ("-", "[b-a!!]", true),
        ("!", "[b-a!!]", false),
        ("", "[!]", false),
        ("[!]", "[!]", true),
        ("\n", "?", true),
    ] {
        assert_eq!(fnmatch(name, pattern), fits, "{name:?} against {pattern:?}");
    }
}

#[test]
fn many_stars_do_not_blow_up() {
    let name = "a".repeat(20_000);
    let pattern = format!("{}b", "*a".repeat(500));
    assert!(!fnmatch(&name, &pattern));
    assert!(!fnmatch(&name, &format!("{}*b*", "*[ab]".repeat(500))));
}
