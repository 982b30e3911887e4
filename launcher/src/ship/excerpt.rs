//! A model cut down to its first layers, with its own weights: what a smoke run is made of.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use qlaunch_shared::checkpoint::CheckpointFiles;
use qlaunch_shared::digest::sha256;
use qlaunch_shared::{Error, Result};
use serde_json::{Map, Value, json};

/// Keys of `config.json` that hold one value for each layer.
const PER_LAYER: [&str; 3] = ["layer_types", "mlp_layer_types", "sliding_window_pattern_by_layer"];

/// Writes the first `layers` layers of a model below `folder`, unless they lie there, with everything that is in no layer:
/// embedding, norm, head, tokenizer. Returns the folder of the excerpt.
///
/// # Errors
/// A model that cannot be read, a disk that is full.
pub fn excerpt(model: &Path, layers: usize, folder: &Path) -> Result<PathBuf> {
    let path = model.join("config.json");
    let text =
        fs::read_to_string(&path).map_err(|error| Error::io("read the model's config", &path, &error))?;
    let mut config: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|error| Error::input(format!("this is no JSON object: {error}")).at(&path))?;
    let all = config.get("num_hidden_layers").and_then(Value::as_u64).unwrap_or(0);
    let kept = (layers as u64).min(all);
    config.insert("num_hidden_layers".to_owned(), json!(kept));
    for key in PER_LAYER {
        if let Some(Value::Array(values)) = config.get_mut(key) {
            values.truncate(layers);
        }
    }
    let files = CheckpointFiles::open(model)?;
    let name = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let to = folder.join(format!("{name}-{}", &sha256(stamps(&files, &text, kept))[..12]));
    // Written last: an excerpt without it is torn.
    let done = to.join("config.json");
    if done.exists() {
        return Ok(to);
    }
    let fault = |error: std::io::Error| Error::io("write the excerpt", &to, &error);
    fs::create_dir_all(&to).map_err(fault)?;
    write_weights(&files, kept, &to.join("model.safetensors"))?;
    for entry in fs::read_dir(model).map_err(fault)?.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let weights = name.contains(".safetensors") || name.ends_with(".bin") || name == "config.json";
        if path.is_file() && !weights {
            fs::copy(&path, to.join(&name)).map_err(fault)?;
        }
    }
    let partial = to.join("config.json.partial");
    fs::write(&partial, format!("{:#}\n", Value::Object(config))).map_err(fault)?;
    fs::rename(&partial, &done).map_err(fault)?;
    Ok(to)
}

/// What tells one model from another: reading its weights for that would take as long as the smoke run.
fn stamps(files: &CheckpointFiles, config: &str, kept: u64) -> String {
    let mut text = format!("{kept}\n{config}");
    for header in &files.headers {
        let changed = header.path.metadata().and_then(|metadata| metadata.modified()).ok();
        let since = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        text.push_str(&format!("{} {} {}\n", header.path.display(), header.file_length, since.as_nanos()));
    }
    text
}

/// Copies the tensors of the first layers and of no layer into one file.
fn write_weights(files: &CheckpointFiles, kept: u64, path: &Path) -> Result<()> {
    let mut names = Map::new();
    let mut at = 0;
    let mut chosen = Vec::new();
    for header in &files.headers {
        for tensor in &header.tensors {
            if layer_of(&tensor.name).is_some_and(|layer| layer >= kept) {
                continue;
            }
            let end = at + tensor.length;
            let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end]});
            names.insert(tensor.name.clone(), entry);
            chosen.push((&header.path, tensor.offset, tensor.length));
            at = end;
        }
    }
    let fault = |error: std::io::Error| Error::io("write the excerpt", path, &error);
    let mut text = Value::Object(names).to_string().into_bytes();
    // Tensor data begins at a multiple of eight bytes, as the format wants it.
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut out = std::io::BufWriter::new(File::create(path).map_err(fault)?);
    out.write_all(&(text.len() as u64).to_le_bytes()).map_err(fault)?;
    out.write_all(&text).map_err(fault)?;
    for (from, offset, length) in chosen {
        let read = |error: std::io::Error| Error::io("read the weights", from, &error);
        let mut file = File::open(from).map_err(read)?;
        file.seek(SeekFrom::Start(offset)).map_err(read)?;
        std::io::copy(&mut file.take(length), &mut out).map_err(read)?;
    }
    out.flush().map_err(fault)
}

/// The number behind `layers.` in a tensor's name.
fn layer_of(name: &str) -> Option<u64> {
    let (_, rest) = name.split_once("layers.")?;
    rest.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use qlaunch_shared::model::Model;

    use super::*;

    #[test]
    fn an_excerpt_is_a_whole_model_of_fewer_layers_with_the_same_weights() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-llama");
        let work = tempfile::tempdir().unwrap();
        let folder = excerpt(&source, 2, work.path()).unwrap();
        let (cut, whole) = (Model::open(&folder).unwrap(), Model::open(&source).unwrap());
        assert_eq!((cut.config.layers, whole.config.layers), (2, 8));
        assert!(cut.strangers.is_empty(), "{:?}", cut.strangers);
        let bytes = |model: &Model, name: &str| {
            let header = &model.files.headers[0];
            let tensor = header.tensors.iter().find(|tensor| tensor.name == name).unwrap();
            let all = fs::read(&header.path).unwrap();
            let from = usize::try_from(tensor.offset).unwrap();
            all[from..from + usize::try_from(tensor.length).unwrap()].to_vec()
        };
        for name in ["model.layers.1.mlp.up_proj.weight", "lm_head.weight", "model.norm.weight"] {
            assert_eq!(bytes(&cut, name), bytes(&whole, name), "{name}");
        }
        assert_eq!(excerpt(&source, 2, work.path()).unwrap(), folder, "made once");
        assert_eq!(layer_of("model.layers.31.mlp.experts.7.up_proj.weight"), Some(31));
        assert_eq!(layer_of("model.norm.weight"), None);
    }
}
