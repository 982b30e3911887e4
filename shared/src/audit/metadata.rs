//! Metadata: tokenizer, chat template, generation settings, architecture and context length are the source's.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::gates::{Findings, Subject};

/// Keys of `config.json` that a quantized checkpoint may change.
const EXPECTED: [&str; 3] = ["quantization_config", "transformers_version", "use_cache"];

/// Files that must be the source's to the byte, where the source has them.
const VERBATIM: [&str; 9] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
];

pub(super) fn check(subject: &Subject<'_>) -> Findings {
    let mut findings = Findings::default();
    let (source, checkpoint) = (&subject.source.folder, &subject.files.folder);
    for key in changed_keys(&subject.source.json, &subject.config) {
        let change = format!(
            "config.json `{key}`: {} → {}",
            show(&subject.source.json, &key),
            show(&subject.config, &key)
        );
        if EXPECTED.contains(&key.as_str()) {
            findings.note(if key == "quantization_config" {
                "config.json `quantization_config`: added".to_owned()
            } else {
                format!("{change} (expected)")
            });
        } else {
            findings.fault(change);
        }
    }
    let mut same = Vec::new();
    for file in VERBATIM {
        match (std::fs::read(source.join(file)), std::fs::read(checkpoint.join(file))) {
            (Ok(before), Ok(after)) if before == after => same.push(file),
            (Ok(_), Ok(_)) => findings.fault(format!("`{file}` differs from the source's")),
            (Ok(_), Err(_)) => findings.fault(format!("`{file}` is missing")),
            (Err(_), _) => {}
        }
    }
    match (generation(source), generation(checkpoint)) {
        (Some(before), Some(after)) => {
            let changed = changed_keys(&before, &after);
            // ModelOpt sets `do_sample` where sampling parameters are given, so that they are not ignored.
            let unexpected =
                changed.iter().filter(|key| !matches!(key.as_str(), "transformers_version" | "do_sample"));
            for key in unexpected {
                findings.fault(format!(
                    "generation_config.json `{key}`: {} → {}",
                    show(&before, key),
                    show(&after, key)
                ));
            }
        }
        (Some(_), None) => findings.fault("`generation_config.json` is missing or no JSON object"),
        (None, _) => {}
    }
    findings.note(format!(
        "the same to the byte: {}",
        if same.is_empty() { "no files".to_owned() } else { same.join(", ") }
    ));
    findings
}

fn generation(folder: &Path) -> Option<Map<String, Value>> {
    let text = std::fs::read(folder.join("generation_config.json")).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Keys whose values differ, each side's own keys included.
fn changed_keys(before: &Map<String, Value>, after: &Map<String, Value>) -> BTreeSet<String> {
    before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key)).cloned().collect()
}

fn show(map: &Map<String, Value>, key: &str) -> String {
    map.get(key).map_or_else(|| "absent".to_owned(), Value::to_string)
}
