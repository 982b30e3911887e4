//! `config.json` of a decoder, in the older and the current spelling of transformers.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Experts, Family, Rope};
use crate::checkpoint::DType;
use crate::{Error, Result};

/// The activation inside an MLP, by its name in `hidden_act`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// Gaussian error linear unit, exact.
    Gelu,
    /// Its tanh approximation.
    GeluTanh,
}

/// Which linears of a decoder layer have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Biases {
    /// q_proj, k_proj and v_proj.
    pub qkv: bool,
    /// o_proj.
    pub output: bool,
    /// gate_proj, up_proj and down_proj.
    pub mlp: bool,
}

/// What the forward pass and the plan need to know of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Which decoder it is.
    pub family: Family,
    /// Element type that weights are stored and activations are rounded in.
    pub dtype: DType,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP; of an expert where the family has no MLP.
    pub intermediate_size: usize,
    /// Routed experts, which some or all layers have in place of an MLP.
    pub experts: Option<Experts>,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Longest context the model was made for.
    pub max_positions: usize,
    /// Epsilon of the norms.
    pub norm_epsilon: f32,
    /// Activation of the MLP.
    pub activation: Activation,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Attention window per layer; `None` sees everything before it.
    pub windows: Vec<Option<usize>>,
    /// Which linears have biases.
    pub biases: Biases,
    /// Whether the output head is the embedding.
    pub tied: bool,
}

/// `config.json` as it is, with errors that name file and key.
pub(super) struct Fields<'a> {
    path: &'a Path,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn error(&self, key: &str, message: impl Into<String>) -> Error {
        let remedy = "take `config.json` from the model's own page again, or correct the key";
        Error::input(message).at(self.path).key(key).hint(remedy)
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn count(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0) {
            Some(n) => Ok(Some(n)),
            None => Err(self.error(key, format!("expected a positive whole number, found `{value}`"))),
        }
    }

    pub(super) fn required_count(&self, key: &str) -> Result<usize> {
        self.count(key)?.ok_or_else(|| {
            self.error(key, "the key is missing").hint("take `config.json` from the model's own page again")
        })
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64().filter(|x| x.is_finite()) {
            Some(x) => Ok(Some(x)),
            None => Err(self.error(key, format!("expected a number, found `{value}`"))),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_str() {
            Some(text) => Ok(Some(text)),
            None => Err(self.error(key, format!("expected text, found `{value}`"))),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_bool() {
            Some(flag) => Ok(Some(flag)),
            None => Err(self.error(key, format!("expected true or false, found `{value}`"))),
        }
    }

    pub(super) fn nested(&self, key: &str) -> Result<Option<Fields<'a>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_object() {
            Some(map) => Ok(Some(Fields { path: self.path, map })),
            None => Err(self.error(key, format!("expected a mapping, found `{value}`"))),
        }
    }
}

const FETCH_CONFIG: &str = "take `config.json` from the model's own page again";

/// Reads `config.json` of a model folder as JSON.
///
/// # Errors
/// It is missing or not a JSON object.
pub fn read_json(folder: &Path) -> Result<(PathBuf, Map<String, Value>)> {
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Error::io("read the model's config", &path, &e).hint("give a model folder in Hugging Face layout")
    })?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Ok((path, map)),
        Ok(_) => Err(Error::input("the model's config is no JSON object").at(path).hint(FETCH_CONFIG)),
        Err(e) => Err(Error::input(format!("the model's config is not JSON: {e}"))
            .at(path)
            .line(e.line(), e.column())
            .hint(FETCH_CONFIG)),
    }
}

impl ModelConfig {
    /// The experts of a decoder layer, where it has them.
    pub fn experts_of(&self, layer: usize) -> Option<&Experts> {
        self.experts.as_ref().filter(|experts| experts.layers.get(layer) == Some(&true))
    }

    /// Understands a `config.json`.
    ///
    /// # Errors
    /// The family is unknown, a key is missing or of the wrong type, or the model has a feature that the forward pass
    /// lacks; the error names file, key and remedy.
    pub fn parse(path: &Path, map: &Map<String, Value>) -> Result<Self> {
        let fields = Fields { path, map };
        let family = Family::of(&fields)?;
        let heads = fields.required_count("num_attention_heads")?;
        let hidden_size = fields.required_count("hidden_size")?;
        let kv_heads = match fields.count("num_key_value_heads")? {
            Some(kv_heads) => kv_heads,
            // A null is not the same as an absent key.
            None if fields.map.contains_key("num_key_value_heads") => heads,
            None => family.default_kv_heads(heads),
        };
        if heads % kv_heads != 0 {
            return Err(fields.error(
                "num_key_value_heads",
                format!("{heads} query heads cannot share {kv_heads} key and value heads evenly"),
            ));
        }
        let head_dim = match fields.count("head_dim")? {
            Some(width) => width,
            None if family == Family::Qwen3 => 128,
            None if hidden_size % heads == 0 => hidden_size / heads,
            None => {
                return Err(
                    fields.error("head_dim", format!("{hidden_size} is no multiple of {heads} heads"))
                );
            }
        };
        if head_dim % 2 != 0 {
            return Err(fields.error("head_dim", format!("an odd head width ({head_dim}) cannot be rotated")));
        }
        let layers = fields.required_count("num_hidden_layers")?;
        let max_positions = fields.count("max_position_embeddings")?.unwrap_or(2048);
        Ok(Self {
            family,
            dtype: dtype(&fields)?,
            hidden_size,
            intermediate_size: fields.required_count("intermediate_size")?,
            experts: Experts::parse(&fields, family, layers)?,
            layers,
            heads,
            kv_heads,
            head_dim,
            vocabulary: fields.required_count("vocab_size")?,
            max_positions,
            norm_epsilon: fields.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            activation: activation(&fields)?,
            rope: Rope::parse(&fields, family, max_positions)?,
            windows: windows(&fields, family, layers)?,
            biases: biases(&fields, family)?,
            tied: fields.flag("tie_word_embeddings")?.unwrap_or(false),
        })
    }
}

/// `dtype` is the current spelling, `torch_dtype` the older one.
fn dtype(fields: &Fields<'_>) -> Result<DType> {
    let key = if fields.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    match fields.text(key)? {
        Some("bfloat16") => Ok(DType::BF16),
        Some("float16") => Ok(DType::F16),
        Some("float32") | None => Ok(DType::F32),
        Some(other) => Err(fields
            .error(key, format!("`{other}` models are not supported"))
            .hint("bfloat16, float16 and float32 are")),
    }
}

/// Qwen2 has its biases by construction, Mistral none; the others say it in the config.
fn biases(fields: &Fields<'_>, family: Family) -> Result<Biases> {
    let attention = fields.flag("attention_bias")?.unwrap_or(false);
    let mlp = fields.flag("mlp_bias")?.unwrap_or(false);
    Ok(match family {
        Family::Other => Biases { qkv: false, output: false, mlp: false },
        Family::Llama => Biases { qkv: attention, output: attention, mlp },
        Family::Qwen3 | Family::Qwen3Moe => Biases { qkv: attention, output: attention, mlp: false },
        Family::Qwen2 => Biases { qkv: true, output: false, mlp: false },
        Family::Mistral | Family::Mixtral => Biases { qkv: false, output: false, mlp: false },
    })
}

fn activation(fields: &Fields<'_>) -> Result<Activation> {
    match fields.text("hidden_act")? {
        Some("silu" | "swish") | None => Ok(Activation::Silu),
        Some("gelu") => Ok(Activation::Gelu),
        Some("gelu_pytorch_tanh" | "gelu_new") => Ok(Activation::GeluTanh),
        Some(other) => Err(fields.error("hidden_act", format!("the activation `{other}` is not supported"))),
    }
}

/// `sliding_window`; transformers takes 4096 where the key is absent, and no window where it is null.
fn window(fields: &Fields<'_>) -> Result<Option<usize>> {
    if fields.map.contains_key("sliding_window") { fields.count("sliding_window") } else { Ok(Some(4096)) }
}

/// Which layers see a window only: `layer_types` where it is given, else the family's own rule.
fn windows(fields: &Fields<'_>, family: Family, layers: usize) -> Result<Vec<Option<usize>>> {
    let width = match family {
        Family::Llama | Family::Other => None,
        Family::Mistral => window(fields)?,
        Family::Mixtral => fields.count("sliding_window")?,
        Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe
            if fields.flag("use_sliding_window")?.unwrap_or(false) =>
        {
            window(fields)?
        }
        Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe => None,
    };
    let Some(width) = width else { return Ok(vec![None; layers]) };
    if matches!(family, Family::Qwen3Moe | Family::Mixtral) {
        // Neither reads `layer_types` or `max_window_layers`.
        return Ok(vec![Some(width); layers]);
    }
    if let Some(types) = fields.get("layer_types").and_then(Value::as_array) {
        if types.len() < layers {
            return Err(fields.error("layer_types", format!("{} types for {layers} layers", types.len())));
        }
        let sliding = |kind: &Value| (kind.as_str() == Some("sliding_attention")).then_some(width);
        return Ok(types[..layers].iter().map(sliding).collect());
    }
    let first = match family {
        Family::Mistral | Family::Mixtral | Family::Llama | Family::Other => 0,
        Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe => {
            fields.get("max_window_layers").and_then(Value::as_u64).map_or(28, |n| n as usize)
        }
    };
    Ok((0..layers).map(|layer| (layer >= first).then_some(width)).collect())
}
