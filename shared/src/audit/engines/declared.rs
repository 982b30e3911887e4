//! What a checkpoint says of its quantization, in the two spellings that engines read.

use serde_json::{Map, Value};

use super::Offered;

/// A declaration, whichever way it is spelt.
#[derive(Debug, Clone)]
pub(super) struct Declared<'a> {
    /// `quant_method`.
    pub(super) method: &'a str,
    /// `quant_algo` as written.
    pub(super) algorithm: Option<&'a str>,
    /// `group_size` of the whole.
    pub(super) group_size: Option<u64>,
    /// `ignore` or `exclude_modules`.
    pub(super) ignore: Vec<&'a str>,
    /// `quantized_layers`.
    pub(super) layers: Option<&'a Map<String, Value>>,
    /// `config_groups`.
    pub(super) groups: Option<&'a Map<String, Value>>,
}

/// The algorithm that stands for a different one in each layer.
pub(super) const MIXED: &str = "MIXED_PRECISION";

impl<'a> Declared<'a> {
    /// `quantization_config` of `config.json`.
    pub(super) fn flat(offered: &'a Offered<'_>) -> Option<Self> {
        let config = offered.config.as_ref()?;
        // hf_quant_config's spelling inside of config.json.
        if let Some(nested) = config.get("quantization").filter(|inner| inner.is_object()) {
            return Some(Self { method: method(config), ..Self::read(nested, "exclude_modules") });
        }
        Some(Self { method: method(config), ..Self::read(config, "ignore") })
    }

    /// `hf_quant_config.json`.
    pub(super) fn file(offered: &'a Offered<'_>) -> Option<Self> {
        let nested = offered.file.as_ref()?.get("quantization")?;
        Some(Self { method: "modelopt", ..Self::read(nested, "exclude_modules") })
    }

    fn read(config: &'a Value, ignore: &str) -> Self {
        let ignore = config.get(ignore).and_then(Value::as_array).into_iter().flatten();
        Self {
            method: "",
            algorithm: config.get("quant_algo").and_then(Value::as_str),
            group_size: config.get("group_size").and_then(Value::as_u64),
            ignore: ignore.filter_map(Value::as_str).collect(),
            layers: config.get("quantized_layers").and_then(Value::as_object),
            groups: config.get("config_groups").and_then(Value::as_object),
        }
    }

    /// The block of the first group's weights.
    pub(super) fn first_block(&self) -> Option<u64> {
        self.groups?.values().next()?.get("weights")?.get("group_size")?.as_u64()
    }

    /// What the whole declares, or `nothing`.
    pub(super) fn name(&self) -> &'a str {
        self.algorithm.unwrap_or("nothing")
    }

    /// `quant_algo` of a layer of a mixed checkpoint.
    pub(super) fn layer(&self, name: &str) -> Option<&'a str> {
        algorithm(self.layers?.get(name)?)
    }

    /// `quant_algo` of the first layer whose name starts with a prefix.
    pub(super) fn first_below(&self, prefix: &str) -> Option<&'a str> {
        algorithm(self.layers?.iter().find(|(name, _)| name.starts_with(prefix))?.1)
    }

    /// `quant_algo` of every listed layer.
    pub(super) fn layer_algorithms(&self) -> impl Iterator<Item = &'a str> {
        self.layers.into_iter().flat_map(Map::values).filter_map(algorithm)
    }
}

fn method(config: &Value) -> &str {
    config.get("quant_method").and_then(Value::as_str).unwrap_or("")
}

fn algorithm(entry: &Value) -> Option<&str> {
    entry.get("quant_algo").and_then(Value::as_str)
}
