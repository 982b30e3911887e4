//! Trees, places, and input that wants to hurt.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(text: &str) -> crate::Result<Document> {
    Document::parse(text, "test.yaml")
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn mappings_keep_their_order_and_numbers_become_keys() {
    let document = parse("b: 1\na: {-1: 16, true: x, 0x10: y, null: z}\n").unwrap();
    let text = serde_json::to_string(&document.value()).unwrap();
    assert_eq!(text, r#"{"b":1,"a":{"-1":16,"true":"x","16":"y","null":"z"}}"#);
}

#[test]
fn every_node_knows_its_place() {
    let document = parse("a:\n  - b: 1\n    c: [x,   y]\n").unwrap();
    assert_eq!(document.position("a.0.c"), Some((3, 8)));
    assert_eq!(document.position("a.0.c.1"), Some((3, 14)));
    assert_eq!(document.position("a.1"), None);
}

#[test]
fn anchors_and_merge_keys_work_as_in_pyyaml() {
    let text = "base: &b {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\nboth: {<<: [*b, *m], x: 5}\nsame: *b\n";
    let value = parse(text).unwrap().value();
    assert_eq!(value["both"], json!({"y": 2, "z": 4, "x": 5}));
    assert_eq!(value["same"], json!({"x": 1, "y": 2}));
    assert_eq!(refusal("a: {<<: 3}").lines().next(), Some("`<<` merges mappings only"));
}

#[test]
fn a_key_that_appears_twice_is_refused_at_its_second_place() {
    assert_eq!(
        refusal("a: 1\nb: 2\na: 3\n"),
        "the key `a` appears twice\n  at test.yaml:3:1 (`a`)\n\nhint: keep one of them"
    );
}

#[test]
fn one_document_is_not_two_and_not_none() {
    assert!(refusal("a: 1\n---\nb: 2\n").starts_with("a second document starts here"));
    assert!(refusal("# nothing\n").starts_with("the file is empty"));
    let source = Arc::new(Source { file: "test.yaml".into(), library: false });
    assert_eq!(Document::parse_all("a: 1\n---\n- b\n", source).unwrap().len(), 2);
}

#[test]
fn a_byte_order_mark_is_no_content() {
    assert_eq!(parse("\u{feff}a: 1\n").unwrap().value(), json!({"a": 1}));
}

#[test]
fn broken_yaml_names_its_line() {
    let error = parse("a: [1, 2\nb: 3\n").unwrap_err();
    assert!(error.message.starts_with("this is not YAML: "), "{error}");
    assert!(error.place.line.is_some());
}

#[test]
fn deep_nesting_is_refused() {
    for text in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000)] {
        let refusal = refusal(&text);
        assert!(refusal.contains("nested deeper than 64 levels"), "{}: {refusal}", &text[..4]);
    }
}

#[test]
fn aliases_cannot_nest_deeper_either() {
    let mut text = "a0: &a0 [x]\n".to_owned();
    for level in 1..100 {
        text += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
    }
    assert!(refusal(&text).contains("aliases nest deeper than 64 levels"));
}

#[test]
fn a_billion_laughs_are_refused() {
    let mut text = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    assert!(refusal(&text).contains("aliases expand to more than a file may hold"));
}

#[test]
fn a_huge_scalar_cannot_be_multiplied() {
    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), vec!["*a"; 10_000].join(", "));
    assert!(refusal(&text).contains("aliases expand to more"));
}

#[test]
fn an_alias_inside_its_own_anchor_is_refused() {
    assert!(refusal("a: &a [1, *a]\n").starts_with("this alias stands inside the node that it refers to"));
    assert!(parse("a: *nowhere\n").is_err());
}

#[test]
fn a_file_larger_than_the_limit_is_refused() {
    let text = format!("a: {}\n", "x".repeat(MAX_BYTES));
    assert!(refusal(&text).contains("more than the 1048576 allowed"));
}

#[test]
fn collections_are_no_keys() {
    assert!(refusal("? [a, b]\n: c\n").starts_with("a key must be text or a number"));
}

#[test]
fn leading_comments_stop_at_the_first_content() {
    let comments: Vec<_> = leading_comments("# one\n\n  # two\na: 1 # three\n# four\n").collect();
    assert_eq!(comments, [(1, "# one"), (3, "# two")]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_text_makes_it_panic(text in "[-a:{}\\[\\],&*!#|>'\"%@ \n\t?~0e.<]{0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn json_is_read_as_it_is(list in proptest::collection::vec((any::<i64>(), "[ -~]{0,12}", any::<bool>()), 0..8)) {
        let value = json!(list);
        prop_assert_eq!(parse(&serde_json::to_string(&value).unwrap()).unwrap().value(), value);
    }
}
