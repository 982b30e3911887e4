//! The reference page of a library of recipes, in Markdown.

use qlaunch_shared::recipe::{Kind, Listing};
use serde_json::Value;

use super::recipe_file::flow;

const HEAD: &str = "\
# The recipe library

Written by `qlaunch recipe page` from the library that is built into the programs; a test compares it
(`UPDATE_DOCS=1 cargo test -p qlaunch-tests --test recipes` writes it anew). `qlaunch recipe show NAME` shows any of these
with everything that it imports in place. Names and content are those of ModelOpt 0.47; other releases' names are understood too
([recipes.md](recipes.md)). In the tables, patterns stand with what they become; patterns that only switch off are left out.
";

/// The sections of the page: a title, a sentence, and which names belong to it.
const SECTIONS: [(&str, &str, &[&str]); 6] = [
    ("General recipes", "For any model.", &["general/"]),
    (
        "Recipes for model families",
        "Named by `model_type`, or by organisation and model.",
        &["huggingface/", "models/"],
    ),
    (
        "Presets for models",
        "Usable wherever a recipe is asked for, by path or by their last name alone (`mxfp8`), with `--kv-cache NAME`.",
        &["configs/ptq/presets/model/", "configs/ptq/presets/diffusers/"],
    ),
    ("Presets for KV caches", "What `--kv-cache NAME` takes.", &["configs/ptq/presets/kv/"]),
    ("Units", "Building blocks that recipes import.", &["configs/ptq/units/", "configs/auto_quantize/"]),
    ("Numerics", "Attributes of one quantizer, to be imported as a `cfg`.", &["configs/numerics/"]),
];

/// The whole page.
pub fn library_page(listings: &[Listing]) -> String {
    let mut page = HEAD.to_owned();
    for (title, sentence, folders) in SECTIONS {
        page.push_str(&format!(
            "\n## {title}\n{sentence}\n\n| name | type | algorithm | what it sets |\n|---|---|---|---|\n"
        ));
        let within = |listing: &&Listing| folders.iter().any(|folder| listing.name.starts_with(folder));
        for listing in listings.iter().filter(within) {
            page.push_str(&row(listing));
        }
    }
    page
}

fn row(listing: &Listing) -> String {
    let (kind, algorithm, sets) = match &listing.definition {
        Ok(definition) => {
            let config = definition.content.get("quantize").unwrap_or(&definition.content);
            let algorithm = match (definition.kind, config.get("algorithm")) {
                (_, Some(algorithm)) => code(&method(algorithm)),
                (Kind::Recipe(_) | Kind::Preset, None) if config.get("quant_cfg").is_some() => code("max"),
                _ => String::new(),
            };
            (definition.kind.name(), algorithm, sets(&definition.content))
        }
        Err(error) => ("broken", String::new(), error.message.clone()),
    };
    format!("| {} | {kind} | {algorithm} | {sets} |\n", code(&listing.name))
}

/// The names of the algorithms of a configuration, one after another.
fn method(algorithm: &Value) -> String {
    match algorithm {
        Value::String(name) => name.clone(),
        Value::Array(list) => list.iter().map(method).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => fields.get("method").map_or_else(|| flow(algorithm), method),
        other => flow(other),
    }
}

/// What a file does, in a table's cell.
fn sets(content: &Value) -> String {
    let config = content.get("quantize").unwrap_or(content);
    if let Some(search) = content.get("auto_quantize") {
        let bits = search.pointer("/constraints/effective_bits").map_or("4.8".to_owned(), flow);
        return format!("a search for {bits} bits a weight");
    }
    match config.get("quant_cfg").or(Some(config).filter(|config| config.is_array())) {
        Some(Value::Array(entries)) => match entries.iter().any(Value::is_string) {
            true => format!("{} patterns of modules", entries.len()),
            false => numerics(entries),
        },
        _ if config.get("quantizer_name").is_some() => numerics(std::slice::from_ref(config)),
        _ if config.get("num_bits").is_some() => code(&flow(config)),
        _ => String::new(),
    }
}

/// Patterns by what they become, in the order in which that is first named.
fn numerics(entries: &[Value]) -> String {
    let mut kinds: Vec<(String, Vec<String>)> = Vec::new();
    let mut off = 0;
    for entry in entries {
        let pattern = entry.get("quantizer_name").and_then(Value::as_str).unwrap_or_default();
        let is_on = entry.get("enable") != Some(&Value::Bool(false));
        let becomes = match entry.get("cfg") {
            _ if !is_on => {
                off += 1;
                continue;
            }
            Some(cfg) if !cfg.is_null() => bits(cfg),
            _ => "on".to_owned(),
        };
        match kinds.iter_mut().find(|(known, _)| *known == becomes) {
            Some((_, patterns)) => patterns.push(code(pattern)),
            None => kinds.push((becomes, vec![code(pattern)])),
        }
    }
    let words: Vec<String> =
        kinds.into_iter().map(|(becomes, patterns)| format!("{}: {becomes}", patterns.join(", "))).collect();
    match words.is_empty() {
        true if off == 1 => "switches 1 pattern off".to_owned(),
        true => format!("switches {off} patterns off"),
        false => words.join("; "),
    }
}

/// `e2m1, blocks of 16 dynamic, scales e4m3`.
fn bits(cfg: &Value) -> String {
    let one = |cfg: &Value| {
        let mut words = vec![cfg.get("num_bits").map_or("int8".to_owned(), |bits| of_bits("num_bits", bits))];
        if let Some(blocks) = cfg.get("block_sizes").and_then(Value::as_object) {
            let axes = blocks.iter().filter(|(key, _)| key.parse::<i64>().is_ok());
            let sizes: Vec<String> = axes.map(|(_, size)| flow(size)).collect();
            let kind = blocks.get("type").map_or(String::new(), |kind| format!(" {}", flow(kind)));
            words.push(format!("blocks of {}{kind}", sizes.join("×")));
            words.extend(
                blocks.get("scale_bits").map(|bits| format!("scales {}", of_bits("scale_bits", bits))),
            );
        } else if cfg.get("axis").is_some_and(|axis| !axis.is_null()) {
            words.push("by channel".to_owned());
        }
        let is = |key: &str, value: &Value| cfg.get(key) == Some(value);
        let marks = [
            (is("type", &Value::from("dynamic")), "dynamic"),
            (
                is("use_constant_amax", &Value::from(true)) || cfg.get("constant_amax").is_some(),
                "constant range",
            ),
            (cfg.get("bias").is_some_and(|bias| !bias.is_null()), "affine"),
            (cfg.get("rotate").is_some_and(|rotate| rotate != &Value::from(false)), "rotated"),
            (cfg.pointer("/block_sizes/four_over_six").is_some(), "four over six"),
        ];
        words.extend(marks.into_iter().filter(|(given, _)| *given).map(|(_, word)| word.to_owned()));
        words.join(", ")
    };
    match cfg {
        Value::Array(several) => several.iter().map(one).collect::<Vec<_>>().join(" then "),
        cfg => one(cfg),
    }
}

fn of_bits(key: &str, bits: &Value) -> String {
    if bits.is_number() {
        return format!("int{bits}");
    }
    let whole = flow(&serde_json::json!({ key: bits }));
    whole.trim_matches(['{', '}']).rsplit(": ").next().unwrap_or_default().to_owned()
}

/// Code in a cell; a bar would end it.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}
