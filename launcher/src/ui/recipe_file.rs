//! A recipe as a file that a person goes on writing: plain YAML, imports in place, comments that say what is what.

use std::collections::HashMap;

use serde_json::Value;

use super::yaml::{scalar, word};

/// Comments by the dotted key in front of which they stand.
pub type Comments = HashMap<String, String>;

/// A value as one line of YAML: `{num_bits: e4m3, axis: null}`.
pub fn flow(value: &Value) -> String {
    at("", value)
}

/// Keys in an order in which people write them; any others follow by name.
const ORDER: [&str; 12] = [
    "metadata",
    "recipe_type",
    "description",
    "quantizer_name",
    "parent_class",
    "num_bits",
    "block_sizes",
    "quantize",
    "auto_quantize",
    "algorithm",
    "cfg",
    "enable",
];

fn ordered(fields: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let rank = |key: &str| ORDER.iter().position(|known| *known == key).unwrap_or(ORDER.len());
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_by_key(|(key, _)| (rank(key), key.as_str() == "quant_cfg"));
    fields
}

/// A value under a key in one line.
fn at(key: &str, value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<String> = ordered(fields)
                .into_iter()
                .map(|(key, value)| format!("{}: {}", name(key), at(key, value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => match (key, items.as_slice()) {
            ("num_bits" | "scale_bits", [Value::Number(exponent), Value::Number(mantissa)]) => {
                format!("e{exponent}m{mantissa}")
            }
            _ => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        },
        Value::String(text) => quoted(text),
        other => scalar(other),
    }
}

/// Axes are integers to ModelOpt, and stay so.
fn name(key: &str) -> String {
    if key.parse::<i64>().is_ok() { key.to_owned() } else { word(key) }
}

/// Inside a line of YAML, commas and brackets need quotes too.
fn quoted(text: &str) -> String {
    let plain = word(text);
    match plain.contains(['"', ',', '[', ']', '{', '}']) {
        true if !text.contains('\'') && !text.contains(char::is_control) => format!("'{text}'"),
        true => Value::from(text).to_string(),
        false => plain,
    }
}

/// The whole file: mappings and lists of mappings as blocks, an entry's parts in one line each.
pub fn recipe_file(content: &Value, comments: &Comments) -> String {
    let mut text = String::new();
    block("", content, 0, comments, &mut text);
    text
}

fn block(path: &str, value: &Value, depth: usize, comments: &Comments, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (key, field) in ordered(fields) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                comment(&path, &indent, comments, text);
                text.push_str(&format!("{indent}{}:", name(key)));
                below(&path, key, field, depth + 1, comments, text);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}.{index}");
                comment(&path, &indent, comments, text);
                let mut inner = String::new();
                match is_block("", item) {
                    true => block(&path, item, depth + 1, comments, &mut inner),
                    false => inner = format!("{}\n", flow(item)),
                }
                // The first line of a block starts behind the dash.
                text.push_str(&format!("{indent}- {}", inner.trim_start_matches(' ')));
            }
        }
        _ => {}
    }
}

fn below(path: &str, key: &str, value: &Value, depth: usize, comments: &Comments, text: &mut String) {
    match is_block(key, value) {
        true => {
            text.push('\n');
            block(path, value, depth, comments, text);
        }
        false => text.push_str(&format!(" {}\n", at(key, value))),
    }
}

fn is_block(key: &str, value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty() && key != "cfg",
        Value::Array(items) => key != "cfg" && items.iter().any(|item| item.is_object() || item.is_string()),
        _ => false,
    }
}

fn comment(path: &str, indent: &str, comments: &Comments, text: &mut String) {
    for line in comments.get(path).into_iter().flat_map(|comment| comment.lines()) {
        text.push_str(&format!("{indent}# {line}\n"));
    }
}

#[cfg(test)]
mod tests {
    use qlaunch_shared::recipe::{Library, define, load_recipe};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_recipe_reads_as_a_person_would_write_it() {
        let content = json!({
            "metadata": {"description": "Mine.", "recipe_type": "ptq"},
            "quantize": {
                "quant_cfg": [
                    {"enable": false, "quantizer_name": "*"},
                    {
                        "cfg": {"block_sizes": {"-1": 16, "scale_bits": [4, 3], "type": "dynamic"}, "num_bits": [2, 1]},
                        "quantizer_name": "*[kv]_bmm_quantizer",
                    },
                    {"cfg": [{"num_bits": 4}, {"axis": [0, 1], "num_bits": [4, 3]}], "quantizer_name": "a"},
                ],
                "algorithm": {"layerwise": {"enable": true}, "method": "max"},
            },
        });
        let comments = Comments::from([
            ("quantize.quant_cfg".to_owned(), "first line\nsecond line".to_owned()),
            ("quantize.quant_cfg.1".to_owned(), "from here".to_owned()),
        ]);
        insta::assert_snapshot!(recipe_file(&content, &comments), @r"
        metadata:
          recipe_type: ptq
          description: Mine.
        quantize:
          algorithm:
            layerwise:
              enable: true
            method: max
          # first line
          # second line
          quant_cfg:
            - quantizer_name: '*'
              enable: false
            # from here
            - quantizer_name: '*[kv]_bmm_quantizer'
              cfg: {num_bits: e2m1, block_sizes: {-1: 16, scale_bits: e4m3, type: dynamic}}
            - quantizer_name: a
              cfg: [{num_bits: 4}, {num_bits: e4m3, axis: [0, 1]}]
        ");
    }

    #[test]
    fn every_recipe_of_the_library_is_the_same_after_writing_and_loading() {
        let library = Library::embedded();
        let folder = tempfile::tempdir().unwrap();
        let (mut seen, path) = (0, folder.path().join("written.yaml"));
        for name in library.names() {
            let content = define(&library, &name).unwrap().content;
            if content.get("metadata").is_none() && content.get("quant_cfg").is_none() {
                continue;
            }
            std::fs::write(&path, recipe_file(&content, &Comments::new())).unwrap();
            let written = load_recipe(&library, path.to_str().unwrap(), &[])
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(written.resolved_json().unwrap(), content, "{name}");
            seen += 1;
        }
        assert!(seen > 90, "{seen}");
    }

    #[test]
    fn words_that_are_something_else_inside_a_line_stay_words() {
        use qlaunch_shared::yaml::Document;
        for text in ["a, b", "[x]", "{x}", "it's, so", "on", "8", "*", "a: b", "", "x\ty,", "null"] {
            let value = json!([{ "key": text }]);
            let line = format!("x: {}\n", flow(&value));
            assert_eq!(Document::parse(&line, "x").unwrap().value()["x"], value, "{line}");
        }
    }
}
