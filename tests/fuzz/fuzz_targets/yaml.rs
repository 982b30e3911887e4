//! Any bytes as YAML: refused with a place, or read into a tree within the bounds that says the same when spelt anew.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use qlaunch_fuzz::spelling::spell;
use qlaunch_shared::yaml::{
    Content, Document, MAX_BYTES, MAX_COST, MAX_DEPTH, Node, Source, from_document, leading_comments,
};
use qlaunch_shared::{Error, ErrorKind};

const FILE: &str = "folder/file.yaml";

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let source = || Arc::new(Source { file: FILE.into(), library: false });
    assert!(leading_comments(text).all(|(_, comment)| comment.starts_with('#')));
    match Document::parse_all(text, source()) {
        Err(error) => assert_placed(&error, text),
        Ok(documents) => documents.iter().for_each(|document| {
            assert_bounded(document.root());
            assert_spelt_anew(document);
        }),
    }
    match Document::parse(text, FILE) {
        Err(error) => assert_placed(&error, text),
        Ok(document) => {
            let value: serde_json::Value = from_document(&document, FILE).expect("any tree is a value");
            assert_eq!(value, document.value());
        }
    }
    if let Err(error) = Document::parse_override(text, source()) {
        assert_placed(&error, text);
    }
});

/// An error blames the input and names the file, and a line only where the file has one.
fn assert_placed(error: &Error, text: &str) {
    assert_eq!(error.kind, ErrorKind::Input, "{error}");
    assert_eq!(error.place.file.as_deref(), Some(Path::new(FILE)), "{error}");
    assert!(!error.message.is_empty());
    // YAML 1.1 has line breaks that Rust's `lines` does not count.
    let breaks =
        text.chars().filter(|c| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')).count();
    assert!(error.place.line.is_none_or(|line| (1..=breaks + 2).contains(&line)), "{error}");
}

fn assert_bounded(root: &Node) {
    let (depth, nodes) = measure(root);
    assert!(depth <= MAX_DEPTH, "{depth} levels");
    assert!(nodes * 64 <= MAX_COST, "{nodes} nodes");
}

/// Levels and nodes of a tree.
fn measure(node: &Node) -> (usize, usize) {
    assert!(node.mark.line >= 1 && node.mark.column >= 1);
    let children: Vec<&Node> = match &node.content {
        Content::List(list) => list.iter().collect(),
        Content::Map(mapping) => mapping.iter().map(|entry| &entry.node).collect(),
        _ => return (0, 1),
    };
    children
        .into_iter()
        .map(measure)
        .fold((1, 1), |(depth, nodes), (below, inside)| (depth.max(below + 1), nodes + inside))
}

fn assert_spelt_anew(document: &Document) {
    let value = document.value();
    let text = spell(&value);
    if text.len() <= MAX_BYTES {
        let again = Document::parse(&text, FILE).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(again.value(), value, "{text}");
    }
}
