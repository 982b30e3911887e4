//! JSON values spelt as YAML 1.1 that must be read back as the same values.

use std::fmt::Write as _;

use serde_json::Value;

/// A text that a YAML 1.1 reader takes for this value.
pub fn spell(value: &Value) -> String {
    let mut text = String::new();
    put(value, &mut text);
    text.push('\n');
    text
}

fn put(value: &Value, text: &mut String) {
    match value {
        Value::Null => text.push('~'),
        Value::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => put_float(float, text),
            None => text.push_str(&number.to_string()),
        },
        Value::String(string) => put_text(string, text),
        Value::Array(list) => {
            text.push('[');
            for element in list {
                put(element, text);
                text.push_str(", ");
            }
            text.push(']');
        }
        Value::Object(fields) => {
            text.push('{');
            for (key, field) in fields {
                // The mark lifts YAML's limit of 1024 characters for a key.
                text.push_str("? ");
                put_text(key, text);
                text.push_str(" : ");
                put(field, text);
                text.push_str(", ");
            }
            text.push('}');
        }
    }
}

/// YAML 1.1 wants a dot in the mantissa and a sign in the exponent.
fn put_float(float: f64, text: &mut String) {
    let plain = format!("{float:e}");
    let (mantissa, exponent) = plain.split_once('e').expect("`{:e}` writes an exponent");
    let dot = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    write!(text, "{mantissa}{dot}e{sign}{exponent}").expect("a string takes what is written to it");
}

fn put_text(string: &str, text: &mut String) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' | '\\' => {
                text.push('\\');
                text.push(c);
            }
            ' '..='~' => text.push(c),
            c => write!(text, "\\U{:08X}", u32::from(c)).expect("a string takes what is written to it"),
        }
    }
    text.push('"');
}
