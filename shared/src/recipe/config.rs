//! A quantizer configuration: entries in order, and the algorithm that calibrates them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::entry::{EntryForm, QuantizerEntry};
use super::library::Library;
use crate::numerics::field::Field;
use crate::{Error, Result};

/// ModelOpt's `QuantizeConfig`: which quantizers are on with which numerics, and how they are calibrated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ConfigForm", into = "ConfigForm")]
pub struct QuantizeConfig {
    /// Entries in order; later ones win.
    pub quant_cfg: Vec<QuantizerEntry>,
    /// A name, a mapping with `method`, a list of those, or `null` for no calibration; `max` when not written.
    pub algorithm: Value,
    /// Bits per element for the cost models of searches, for the configuration as a whole.
    pub effective_bits: Option<f64>,
    written: Written,
}

/// Which keys the author wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    quant_cfg: bool,
    algorithm: bool,
    effective_bits: bool,
}

/// A configuration as it is written: nothing but what its author wrote.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ConfigForm {
    #[serde(skip_serializing_if = "Field::is_unset")]
    pub algorithm: Field<Value>,
    #[serde(skip_serializing_if = "Field::is_unset")]
    pub effective_bits: Field<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quant_cfg: Option<Vec<QuantizerEntry>>,
}

impl QuantizeConfig {
    /// Adds the entries of a KV cache preset behind all others, as ModelOpt does for its `--kv_cache_qformat`.
    pub(super) fn append(&mut self, other: Self) {
        self.quant_cfg.extend(other.quant_cfg);
        self.written.quant_cfg = true;
        if self.algorithm.is_null() || !self.written.algorithm {
            self.algorithm = Value::from("max");
            self.written.algorithm = true;
        }
    }

    /// Name of the calibration method: `max` for both `max` and `{method: max}`; `None` without calibration.
    pub fn method(&self) -> Option<&str> {
        match &self.algorithm {
            Value::String(name) => Some(name),
            Value::Object(map) => map.get("method").and_then(Value::as_str),
            _ => None,
        }
    }

    /// The KV cache preset of a name (`fp8`, `nvfp4_cast`, …), or nothing for `none`.
    ///
    /// # Errors
    /// A name that no preset has.
    pub(super) fn kv_cache(library: &Library, name: &str) -> Result<Option<Self>> {
        const FOLDER: &str = "configs/ptq/presets/kv";
        if name == "none" {
            return Ok(None);
        }
        if library.find_config(&format!("{FOLDER}/{name}")).is_err() {
            let known = library.names_under(FOLDER);
            let known: Vec<&str> = known.iter().map(String::as_str).chain(["none"]).collect();
            return Err(Error::input(format!("there is no KV cache format `{name}`"))
                .hint(crate::yaml::did_you_mean(name, &known)));
        }
        let recipe = super::load::load_recipe(library, &format!("{FOLDER}/{name}"), &[])?;
        Ok(recipe.quantize().cloned())
    }
}

impl TryFrom<ConfigForm> for QuantizeConfig {
    type Error = String;

    fn try_from(form: ConfigForm) -> Result<Self, String> {
        let written = Written {
            quant_cfg: form.quant_cfg.is_some(),
            algorithm: !form.algorithm.is_unset(),
            effective_bits: !form.effective_bits.is_unset(),
        };
        let effective_bits = form.effective_bits.value().copied();
        if effective_bits.is_some_and(|bits| !(bits > 0.0 && bits <= 16.0)) {
            return Err("`effective_bits` must be above 0 and at most 16".to_owned());
        }
        let algorithm = match form.algorithm {
            Field::Unset => Value::from("max"),
            Field::Null => Value::Null,
            Field::Set(algorithm) => algorithm,
        };
        let quant_cfg = match form.quant_cfg {
            Some(entries) => entries,
            None => vec![default_entry()?],
        };
        Ok(Self { quant_cfg, algorithm, effective_bits, written })
    }
}

/// What ModelOpt quantizes when a configuration lists no entries: everything, to 8-bit integers per tensor.
fn default_entry() -> Result<QuantizerEntry, String> {
    let form = serde_json::json!({"quantizer_name": "*", "cfg": {"num_bits": 8, "axis": null}});
    let form: EntryForm = serde_json::from_value(form).map_err(|error| error.to_string())?;
    QuantizerEntry::try_from(form)
}

impl From<QuantizeConfig> for ConfigForm {
    fn from(config: QuantizeConfig) -> Self {
        let QuantizeConfig { quant_cfg, algorithm, effective_bits, written } = config;
        Self {
            algorithm: match algorithm {
                _ if !written.algorithm => Field::Unset,
                Value::Null => Field::Null,
                algorithm => Field::Set(algorithm),
            },
            effective_bits: match effective_bits {
                Some(bits) => Field::Set(bits),
                None if written.effective_bits => Field::Null,
                None => Field::Unset,
            },
            quant_cfg: written.quant_cfg.then_some(quant_cfg),
        }
    }
}
