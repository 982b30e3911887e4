//! The files beside the weights: configs with the quantization declared, tokenizer and the rest as they are.

use std::path::{Path, PathBuf};

use qlaunch_shared::assign::{Assignment, quantization_config};
use qlaunch_shared::model::Model;
use qlaunch_shared::quality::{CARD, FILE, SOURCE_CARD};
use qlaunch_shared::{Error, Result};
use serde_json::{Map, Value, json};

/// Files that an export writes itself, or that describe another quantization.
const OWNED: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "hf_quant_config.json",
    "quant_config.json",
    "quantization_config.json",
    "quantize_config.json",
    "recipe.yaml",
    "recipe.yml",
];

/// What is told of a checkpoint that the source may be itself, and a card that would be taken for the source's.
const DESCRIBES_ANOTHER: [&str; 2] = [FILE, SOURCE_CARD];

/// Extensions of weights in whatever format.
const WEIGHTS: [&str; 17] = [
    "bin",
    "ckpt",
    "gguf",
    "h5",
    "msgpack",
    "npy",
    "npz",
    "onnx",
    "ot",
    "pb",
    "pickle",
    "pkl",
    "pt",
    "pth",
    "safetensors",
    "tflite",
    "index.json",
];

/// Name and content of a file.
pub type Companion = (String, Vec<u8>);

/// All files beside the weights; `config.json` comes last.
pub(super) fn companions(model: &Model, assignment: &Assignment) -> Result<Vec<Companion>> {
    let quantization = quantization_config(model, assignment);
    let mut files = Vec::new();
    for path in plain_files(&model.folder)? {
        let content = std::fs::read(&path).map_err(|e| Error::io("read the file", &path, &e))?;
        // A checkpoint has a card of its own; its source's is kept under another name.
        let name = file_name(&path);
        files.push((if name == CARD { SOURCE_CARD.to_owned() } else { name }, content));
    }
    let generation = model.folder.join("generation_config.json");
    if generation.is_file() {
        files.push(("generation_config.json".to_owned(), generation_config(&generation)?));
    }
    // bitsandbytes has no file of its own, and ModelOpt's has no word for NF4.
    if !quantization.is_bitsandbytes() {
        files.push(("hf_quant_config.json".to_owned(), pretty(&quantization.hf_quant_config())?));
    }
    let mut config = model.json.clone();
    // Calibration runs without a cache, and ModelOpt's export keeps that setting; engines do not read it.
    if let Some(cache) = config.get_mut("use_cache") {
        *cache = json!(false);
    }
    config.insert("quantization_config".to_owned(), quantization.config_json());
    files.push(("config.json".to_owned(), pretty(&Value::Object(config))?));
    Ok(files)
}

/// Files of the source that are carried over to the byte, by name.
fn plain_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e: std::io::Error| Error::io("list the model's files", folder, &e);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = file_name(&path);
        let is_weight = WEIGHTS.iter().any(|ending| name.ends_with(&format!(".{ending}")));
        if path.is_file()
            && !name.starts_with('.')
            && !is_weight
            && !OWNED.contains(&name.as_str())
            && !DESCRIBES_ANOTHER.contains(&name.as_str())
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Sampling parameters without `do_sample` are refused by transformers when it saves or loads strictly; ModelOpt sets
/// the switch. Otherwise the file stays as it is to the byte.
fn generation_config(path: &Path) -> Result<Vec<u8>> {
    let text = std::fs::read(path).map_err(|e| Error::io("read the file", path, &e))?;
    let mut config: Map<String, Value> = serde_json::from_slice(&text).map_err(|e| {
        Error::input(format!("not a JSON object: {e}"))
            .at(path)
            .line(e.line(), e.column())
            .hint("fetch the file again")
    })?;
    let samples = ["top_k", "top_p"].iter().any(|key| config.get(*key).is_some_and(|value| !value.is_null()));
    if !samples || config.get("do_sample") == Some(&json!(true)) {
        return Ok(text);
    }
    config.insert("do_sample".to_owned(), json!(true));
    pretty(&Value::Object(config))
}

fn pretty(value: &Value) -> Result<Vec<u8>> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|e| Error::bug(format!("cannot write JSON: {e}")))?;
    text.push(b'\n');
    Ok(text)
}
