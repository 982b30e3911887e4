//! A model as far as it can be told without running it: weights that are not here yet, families that nobody knows.
//! Good for plans, from a config, an index or headers.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::config::read_json;
use super::experts::Weighting;
use super::headers::{self, Reading};
use super::{Experts, Family, Model, ModelConfig, fused, modules_of};
use crate::checkpoint::{CheckpointFiles, DType, Header, INDEX, SINGLE, TensorEntry, WeightIndex, elements};
use crate::{Error, Result};

/// A model for plans, and what a person should know about where the knowledge comes from.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The model. Where its weights are not here, their offsets mean nothing.
    pub model: Model,
    /// Sentences on what is not known as well as usual.
    pub remarks: Vec<String>,
}

impl Survey {
    /// Opens a model as far as it is there: with its weights, with `config.json` and the index, or with `config.json`
    /// alone; of a family that is not known, with its weights.
    ///
    /// # Errors
    /// There is no config, it cannot be understood, the model is already quantized, index and config tell different
    /// models, or neither family nor headers tell the modules.
    pub fn of(folder: &Path) -> Result<Self> {
        if !folder.join("config.json").is_file() {
            // It has the words for a folder that is no model.
            return Ok(Self { model: Model::open(folder)?, remarks: Vec::new() });
        }
        let (path, json) = read_json(folder)?;
        if json.get("quantization_config").is_some_and(|quantized| !quantized.is_null()) {
            return Err(Error::input("the model is already quantized")
                .at(&path)
                .key("quantization_config")
                .hint("start from the original bf16 model"));
        }
        let index = WeightIndex::read(folder)?;
        let is_here = match &index {
            Some(index) => index.files().iter().all(|file| folder.join(file).is_file()),
            None => folder.join(SINGLE).is_file(),
        };
        match ModelConfig::parse(&path, &json) {
            Ok(_) if is_here => Ok(Self { model: Model::open(folder)?, remarks: Vec::new() }),
            Ok(config) => Promise { folder, config, json }.survey(index.as_ref()),
            Err(error) if is_family(&error, &json) && is_here => unknown(folder, json),
            Err(error) if is_family(&error, &json) => {
                Err(error.context("the weights are not here, and names and shapes of their tensors cannot be guessed").hint(
                    "fetch the safetensors files, or at least the start of each: their headers are enough for a plan",
                ))
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a config is refused for its family and nothing else.
fn is_family(error: &Error, json: &Map<String, Value>) -> bool {
    let named = json.get("model_type").is_some_and(Value::is_string);
    named && matches!(error.place.key.as_deref(), Some("model_type" | "architectures"))
}

/// A model of a known family whose weights are not here.
struct Promise<'a> {
    folder: &'a Path,
    config: ModelConfig,
    json: Map<String, Value>,
}

impl Promise<'_> {
    fn survey(mut self, index: Option<&WeightIndex>) -> Result<Survey> {
        let mut remarks = vec![match index {
            Some(_) => {
                "the weights are not here: names are the index's, shapes follow from `config.json`, and the \
                        source's size is that of its tensors"
                    .to_owned()
            }
            None => "neither weights nor an index are here: everything follows from `config.json`".to_owned(),
        }];
        let total = index.and_then(WeightIndex::total_size);
        let mut expected = self.expected();
        let has_dtype =
            ["dtype", "torch_dtype"].iter().any(|key| self.json.get(*key).is_some_and(|v| !v.is_null()));
        let is_half = total.is_some_and(|total| total * 2 == bytes(&expected));
        if !has_dtype && self.config.dtype == DType::F32 && is_half {
            // Two bytes an element: what models without a word on it are today.
            self.config.dtype = DType::BF16;
            expected = self.expected();
        }
        let strangers = match index {
            Some(index) => self.compare(index, &expected)?,
            None => Vec::new(),
        };
        if let Some(total) = total.filter(|&total| total != bytes(&expected)) {
            let known = bytes(&expected);
            remarks.push(format!(
                "the index speaks of {total} bytes of tensors, the modules of the config have {known}"
            ));
        }
        if !strangers.is_empty() {
            remarks.push(format!("tensors of no known module (`{}` first) are not counted", strangers[0]));
        }
        let header = Header {
            path: self.folder.to_path_buf(),
            file_length: bytes(&expected),
            metadata: Default::default(),
            tensors: expected,
        };
        let files = CheckpointFiles::from_headers(self.folder, vec![header])?;
        let modules = modules_of(&self.config);
        let Self { folder, config, json } = self;
        let model =
            Model { folder: folder.to_path_buf(), config, json, files, modules, strangers: Vec::new() };
        Ok(Survey { model, remarks })
    }

    /// The tensors that the config implies.
    fn expected(&self) -> Vec<TensorEntry> {
        let mut tensors = Vec::new();
        for module in modules_of(&self.config) {
            let is_tied = self.config.tied && module.name == "lm_head";
            let Some(shape) = module.role.weight_shape().filter(|_| !is_tied) else { continue };
            if self.config.has_bias(&module) {
                tensors.push(self.entry(format!("{}.bias", module.name), shape[..1].to_vec()));
            }
            tensors.push(self.entry(format!("{}.weight", module.name), shape));
        }
        tensors
    }

    fn entry(&self, name: String, shape: Vec<usize>) -> TensorEntry {
        let dtype = self.config.dtype;
        let length = elements(&shape).unwrap_or(u64::MAX).saturating_mul(dtype.size() as u64);
        TensorEntry { name, dtype, shape, offset: 0, length }
    }

    /// Compares what the config implies with what the index lists; returns tensors that no module owns.
    fn compare(&self, index: &WeightIndex, expected: &[TensorEntry]) -> Result<Vec<String>> {
        let known: BTreeSet<&str> = expected.iter().map(|tensor| tensor.name.as_str()).collect();
        let mut strangers = Vec::new();
        let mut is_fused = false;
        for (name, _) in index.places() {
            if fused::place(name, &self.config).is_some() {
                is_fused = true;
            } else if !(known.contains(name) || self.config.tied && name == "lm_head.weight") {
                strangers.push(name.to_owned());
            }
        }
        let missing = expected.iter().find(|tensor| !index.has(&tensor.name));
        if let Some(missing) = missing.filter(|_| !is_fused) {
            return Err(Error::input("the index lacks a tensor that the config implies")
                .at(self.folder.join(INDEX))
                .key(missing.name.as_str())
                .hint("`config.json` and the index must belong to the same model: fetch both again"));
        }
        Ok(strangers)
    }
}

fn bytes(tensors: &[TensorEntry]) -> u64 {
    tensors.iter().map(|tensor| tensor.length).fold(0, u64::saturating_add)
}

/// A model of a family that is not known, from the names of its tensors.
fn unknown(folder: &Path, json: Map<String, Value>) -> Result<Survey> {
    let files = headers::taken_apart(CheckpointFiles::open(folder)?)?;
    let text = json.get("text_config").and_then(Value::as_object).unwrap_or(&json);
    let count = |keys: &[&str]| {
        let found = keys.iter().find_map(|key| text.get(*key).or_else(|| json.get(*key))?.as_u64());
        found.and_then(|count| usize::try_from(count).ok()).filter(|&count| count > 0)
    };
    let mut config = plain_config(folder)?;
    config.family = Family::Other;
    config.dtype = common_dtype(&files);
    config.layers = count(&["num_hidden_layers", "n_layer", "num_layers"]).unwrap_or(0);
    let experts = count(&["num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"]);
    let per_token = count(&["num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k"]);
    config.experts = experts.zip(per_token).map(|(count, per_token)| Experts {
        count,
        per_token,
        intermediate_size: 0,
        weighting: Weighting { normalised: false, rounded: false },
        layers: Vec::new(),
    });
    let reading = Reading {
        dtype: config.dtype,
        layers: Some(config.layers).filter(|&layers| layers > 0),
        own_code: json.get("auto_map").is_some_and(Value::is_object),
    };
    let (modules, strangers) = headers::modules(files.tensors(), reading);
    let kind = json.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let remarks = vec![format!(
        "the model family `{kind}` is not known: modules are told from the names of tensors, and it can be planned, \
         not run"
    )];
    let model = Model { folder: folder.to_path_buf(), config, json, files, modules, strangers };
    Ok(Survey { model, remarks })
}

/// A config of which nothing matters: plans of unknown families read names and shapes only.
fn plain_config(folder: &Path) -> Result<ModelConfig> {
    let plain = json!({
        "model_type": "llama", "hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 1,
        "num_attention_heads": 1, "vocab_size": 1,
    });
    let map = plain.as_object().cloned().unwrap_or_default();
    ModelConfig::parse(&folder.join("config.json"), &map)
}

/// The type that most bytes have among those that models are made in.
fn common_dtype(files: &CheckpointFiles) -> DType {
    let bytes = |dtype: DType| -> u64 {
        files.tensors().filter(|tensor| tensor.dtype == dtype).map(|tensor| tensor.length).sum()
    };
    let candidates = [DType::BF16, DType::F16, DType::F32];
    candidates.into_iter().rev().max_by_key(|&dtype| bytes(dtype)).unwrap_or(DType::BF16)
}
