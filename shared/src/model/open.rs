//! Opening a model folder: config and weight headers must tell the same story.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::config::read_json;
use super::family::unusable;
use super::{ModelConfig, Module, Projection, fused, modules_of};
use crate::checkpoint::{CheckpointFiles, DType, TensorEntry, elements};
use crate::{Error, Result};

/// A model folder: config and headers.
#[derive(Debug, Clone)]
pub struct Model {
    /// The folder.
    pub folder: PathBuf,
    /// What `config.json` says.
    pub config: ModelConfig,
    /// `config.json` as it is, in its own key order.
    pub json: Map<String, Value>,
    /// Headers of the weight files. Experts that a file keeps fused stand there one by one.
    pub files: CheckpointFiles,
    /// Modules in PyTorch's order.
    pub modules: Vec<Module>,
    /// Tensors that no module owns; they are carried over as they are.
    pub strangers: Vec<String>,
}

impl Model {
    /// Opens an unquantized model and checks every tensor's presence, dtype and shape.
    ///
    /// # Errors
    /// Names folder or file, tensor or key, and the remedy. An already quantized checkpoint is refused.
    pub fn open(folder: &Path) -> Result<Self> {
        let model = Self::open_any(folder)?;
        if model.json.get("quantization_config").is_some_and(|q| !q.is_null()) {
            return Err(Error::input("the model is already quantized")
                .at(folder.join("config.json"))
                .key("quantization_config")
                .hint("start from the original bf16 model"));
        }
        for module in &model.modules {
            model.check_module(module)?;
        }
        Ok(model)
    }

    /// Opens a model or a quantized checkpoint; tensors are not checked against the config.
    ///
    /// # Errors
    /// Config or headers cannot be read or understood.
    pub fn open_any(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::input("there is no such model folder")
                .at(folder)
                .hint("give a local folder in Hugging Face layout"));
        }
        let (path, json) = read_json(folder)?;
        let mut config = ModelConfig::parse(&path, &json)?;
        let files = CheckpointFiles::open(folder)?;
        // A config without a type leaves it to the weights, as transformers does.
        if !["dtype", "torch_dtype"].iter().any(|key| json.get(*key).is_some_and(|value| !value.is_null())) {
            let embedding = files.tensor("model.embed_tokens.weight")?.dtype;
            config.dtype = if embedding.is_model_dtype() { embedding } else { config.dtype };
        }
        let files = fused::taken_apart(files, &config)?;
        let modules = modules_of(&config);
        let owners: HashSet<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        let owned = |name: &str| name.rsplit_once('.').is_some_and(|(owner, _)| owners.contains(owner));
        let strangers =
            files.tensors().filter(|tensor| !owned(&tensor.name)).map(|tensor| tensor.name.clone()).collect();
        Ok(Self { folder: folder.to_path_buf(), config, json, files, modules, strangers })
    }

    /// Index of the module of this name.
    ///
    /// # Errors
    /// There is none, which every family's list of modules rules out.
    pub fn module(&self, name: &str) -> Result<usize> {
        let found = self.modules.iter().position(|module| module.name == name);
        found.ok_or_else(|| Error::bug("the model lacks a module").key(name))
    }

    /// The weight of a module, where it has one. A tied head has the embedding's.
    pub fn weight(&self, module: &Module) -> Option<&TensorEntry> {
        let owner = if self.is_tied_head(module) { "model.embed_tokens" } else { &module.name };
        self.files.find(&format!("{owner}.weight")).map(|(_, tensor)| tensor)
    }

    /// The bias of a module, where it has one.
    pub fn bias(&self, module: &Module) -> Option<&TensorEntry> {
        self.files.find(&format!("{}.bias", module.name)).map(|(_, tensor)| tensor)
    }

    /// Whether the module is an output head that shares the embedding's tensor.
    pub fn is_tied_head(&self, module: &Module) -> bool {
        self.config.tied && module.name == "lm_head"
    }

    /// Tensors of the source that go into a checkpoint; a tied head's own copy does not.
    pub fn kept_tensors(&self) -> impl Iterator<Item = &TensorEntry> {
        self.files.tensors().filter(|tensor| !(self.config.tied && tensor.name == "lm_head.weight"))
    }

    /// Parameters, counted once where tied.
    pub fn parameters(&self) -> u64 {
        self.kept_tensors().filter_map(|tensor| elements(&tensor.shape)).sum()
    }

    fn check_module(&self, module: &Module) -> Result<()> {
        let Some(expected) = module.role.weight_shape() else { return Ok(()) };
        if self.is_tied_head(module) {
            return Ok(());
        }
        let weight = self.files.tensor(&format!("{}.weight", module.name))?;
        self.check_tensor(weight, &expected)?;
        match (self.bias(module), self.config.has_bias(module)) {
            (Some(bias), true) => self.check_tensor(bias, &expected[..1]),
            (None, false) => Ok(()),
            (found, _) => {
                let message = if found.is_some() {
                    "there is a bias: the config says none"
                } else {
                    "the bias is missing"
                };
                Err(unusable(message.to_owned(), &self.folder, &format!("{}.bias", module.name)))
            }
        }
    }

    fn check_tensor(&self, tensor: &TensorEntry, shape: &[usize]) -> Result<()> {
        let file = self.files.find(&tensor.name).map_or(&self.folder, |(header, _)| &header.path);
        if tensor.dtype != self.config.dtype {
            let (found, expected): (DType, DType) = (tensor.dtype, self.config.dtype);
            return Err(unusable(
                format!("wrong dtype {found}: the config says {expected}"),
                file,
                &tensor.name,
            ));
        }
        if tensor.shape != shape {
            let message = format!("wrong shape {:?}: the config says {shape:?}", tensor.shape);
            return Err(unusable(message, file, &tensor.name));
        }
        Ok(())
    }
}

impl ModelConfig {
    /// Whether the config gives a module a bias.
    pub(super) fn has_bias(&self, module: &Module) -> bool {
        let biases = self.biases;
        match module.projection {
            Some(Projection::Query | Projection::Key | Projection::Value) => biases.qkv,
            Some(Projection::Output) => biases.output,
            Some(Projection::Gate | Projection::Up | Projection::Down) => biases.mlp,
            None => false,
        }
    }
}
