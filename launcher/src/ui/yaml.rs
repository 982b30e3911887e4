//! Writes a JSON value as the YAML that people write by hand: block style, plain words where they are safe.

use serde_json::Value;

/// The value as YAML, with a newline at the end.
pub fn yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => block(value, 0, &mut text),
        Value::Array(items) if !items.is_empty() => block(value, 0, &mut text),
        _ => {
            text.push_str(&scalar(value));
            text.push('\n');
        }
    }
    text
}

fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                text.push_str(&format!("{indent}{}:", word(key)));
                below(field, depth + 1, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut inner = String::new();
                match is_block(item) {
                    // The first line of a nested block starts behind the dash.
                    true => {
                        block(item, depth + 1, &mut inner);
                        text.push_str(&format!("{indent}- {}", inner.trim_start_matches(' ')));
                    }
                    false => text.push_str(&format!("{indent}- {}\n", scalar(item))),
                }
            }
        }
        _ => {}
    }
}

fn below(value: &Value, depth: usize, text: &mut String) {
    match is_block(value) {
        true => {
            text.push('\n');
            block(value, depth, text);
        }
        false => text.push_str(&format!(" {}\n", scalar(value))),
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        // Short lists of numbers, as in scale bits `[4, 3]`, read better in one line.
        Value::Array(items) => !items.is_empty() && !items.iter().all(Value::is_number),
        _ => false,
    }
}

pub(super) fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => word(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(scalar).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(_) => "{}".to_owned(),
        Value::Number(number) => float(&number.to_string()),
        other => other.to_string(),
    }
}

/// YAML 1.1 takes `1e-5` for text: a float needs a dot, and its exponent a sign.
fn float(text: &str) -> String {
    match text.split_once('e') {
        None => text.to_owned(),
        Some((mantissa, exponent)) => {
            let mantissa = if mantissa.contains('.') { mantissa.to_owned() } else { format!("{mantissa}.0") };
            let sign = if exponent.starts_with(['-', '+']) { "" } else { "+" };
            format!("{mantissa}e{sign}{exponent}")
        }
    }
}

/// A word as it is where no reader could take it for anything else, in quotes otherwise.
pub(super) fn word(text: &str) -> String {
    let safe_start = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '/');
    let safe = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./+*()|,' ".contains(c));
    let literal = matches!(
        text.to_ascii_lowercase().as_str(),
        "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    match safe_start && safe && !literal && !text.ends_with(' ') {
        true => text.to_owned(),
        false => Value::String(text.to_owned()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qlaunch_shared::recipe::{Library, define};
    use qlaunch_shared::yaml::Document;
    use serde_json::json;

    #[test]
    fn a_nested_value_is_written_by_hand() {
        let value = json!({"quantize": {"entries": [
            {"name": "*weight*", "cfg": {"bits": [4, 3], "axis": null, "type": "dynamic"}},
            {"name": "on", "eps": 1e-9, "empty": {}, "list": []},
        ]}});
        insta::assert_snapshot!(yaml(&value), @r#"
        quantize:
          entries:
            - name: "*weight*"
              cfg:
                bits: [4, 3]
                axis: null
                type: dynamic
            - name: "on"
              eps: 1.0e-9
              empty: {}
              list: []
        "#);
    }

    #[test]
    fn every_file_of_the_library_is_the_same_after_writing_and_reading() {
        let library = Library::embedded();
        let names = library.names();
        assert!(!names.is_empty());
        for name in names {
            let content = define(&library, &name).unwrap().content;
            let read = Document::parse(&yaml(&content), "shown.yaml").unwrap().value();
            assert_eq!(read, content, "{name}");
        }
    }

    #[test]
    fn words_that_are_something_else_to_yaml_stay_words() {
        for text in [
            "",
            "1",
            "on",
            "a: b",
            "# no",
            "1e-3",
            "~",
            "- x",
            "a #b",
            "tab\t",
            "ümlaut",
            "2020-01-01",
            "null",
            "&a",
            "*",
        ] {
            let value = json!({ "key": text, "list": [text] });
            assert_eq!(Document::parse(&yaml(&value), "x").unwrap().value(), value, "{text:?}");
        }
    }
}
