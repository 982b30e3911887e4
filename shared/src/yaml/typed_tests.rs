//! Errors of typed reading: place, key and the word that was meant.

use serde::Deserialize;

use super::{Document, from_document};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the errors are looked at")]
struct Sweep {
    model: String,
    #[serde(default)]
    candidates: Vec<Candidate>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the errors are looked at")]
struct Candidate {
    recipe: String,
    rate: Option<f64>,
    kind: Option<Kind>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Memory,
    Compute,
}

fn refusal(text: &str) -> String {
    let document = Document::parse(text, "sweep.yaml").unwrap();
    from_document::<Sweep>(&document, "sweep.yaml").unwrap_err().to_string()
}

#[test]
fn an_unknown_key_is_named_with_the_one_that_was_meant() {
    assert_eq!(
        refusal("model: m\ncandidates:\n  - recipe: a\n  - recipe: b\n    recipee: c\n"),
        "unknown key `recipee`\n  at sweep.yaml:5:5 (`candidates.1.recipee`)\n\nhint: did you mean `recipe`?"
    );
    assert_eq!(
        refusal("model: m\nzzz: 1\n"),
        "unknown key `zzz`\n  at sweep.yaml:2:1 (`zzz`)\n\nhint: known here: `model`, `candidates`"
    );
}

#[test]
fn a_missing_key_is_named_where_it_belongs() {
    assert_eq!(
        refusal("model: m\ncandidates:\n  - rate: 1.0\n"),
        "`recipe` is missing\n  at sweep.yaml:3:5 (`candidates.0.recipe`)\n\nhint: add `recipe:` here"
    );
}

#[test]
fn an_unknown_value_is_named_with_the_one_that_was_meant() {
    assert_eq!(
        refusal("model: m\ncandidates: [{recipe: a, kind: memroy}]\n"),
        "unknown value `memroy`\n  at sweep.yaml:2:32 (`candidates.0.kind`)\n\nhint: did you mean `memory`?"
    );
}

#[test]
fn the_float_that_yaml_takes_for_text_is_explained() {
    let text = refusal("model: m\ncandidates: [{recipe: a, rate: 1e-3}]\n");
    assert!(text.contains("at sweep.yaml:2:32 (`candidates.0.rate`)"), "{text}");
    assert!(text.ends_with("write a float with a dot and a signed exponent, like `1.0e-3`"), "{text}");
}

#[test]
fn a_wrong_type_is_named_at_its_place() {
    assert_eq!(
        refusal("model: [m]\n"),
        "invalid type: sequence, expected a string\n  at sweep.yaml:1:8 (`model`)\n\nhint: write a string here"
    );
}
