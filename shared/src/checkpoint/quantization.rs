//! `hf_quant_config.json` and `quantization_config` of `config.json`: how a checkpoint tells loaders what it is.
//!
//! Both are written, and alike: vLLM and SGLang read `config.json` first, TensorRT-LLM takes the file as authority.
//! Spelling, key order and the collapsing of excluded names are ModelOpt 0.47's.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value, json};

use crate::numerics::Format;

/// Version of ModelOpt whose layout is written; loaders key on the producer.
const PRODUCER_VERSION: &str = "0.47.0";

/// How one linear is stored and multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerAlgorithm {
    /// Numerics of the weight.
    pub weight: Format,
    /// Numerics of the activations; `None` leaves them as they are.
    pub input: Option<Format>,
}

impl LayerAlgorithm {
    /// ModelOpt's name, `None` for a pair that no checkpoint format has.
    pub const fn name(self) -> Option<&'static str> {
        match (self.weight, self.input) {
            (Format::Fp8, Some(Format::Fp8)) => Some("FP8"),
            (Format::Nvfp4, Some(Format::Nvfp4)) => Some("NVFP4"),
            (Format::Nvfp4, None) => Some("W4A16_NVFP4"),
            _ => None,
        }
    }

    /// The entry of `quantized_layers`.
    fn entry(self) -> Map<String, Value> {
        let mut entry = Map::new();
        entry.insert("quant_algo".to_owned(), json!(self.name()));
        if let Some(block) = self.weight.block() {
            entry.insert("group_size".to_owned(), json!(block));
        }
        entry
    }

    /// The entry of `config_groups`.
    fn group(self, targets: Value) -> Value {
        let numbers = |format: Format| {
            let mut map = Map::new();
            map.insert("dynamic".to_owned(), json!(false));
            map.insert("num_bits".to_owned(), json!(format.bits()));
            map.insert("type".to_owned(), json!("float"));
            if let Some(block) = format.block() {
                map.insert("group_size".to_owned(), json!(block));
            }
            map
        };
        let mut group = Map::new();
        if let Some(input) = self.input {
            group.insert("input_activations".to_owned(), json!(numbers(input)));
        }
        group.insert("weights".to_owned(), json!(numbers(self.weight)));
        group.insert("targets".to_owned(), targets);
        json!(group)
    }
}

/// What a checkpoint says of its quantization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizationConfig {
    /// Quantized linears in model order.
    pub layers: Vec<(String, LayerAlgorithm)>,
    /// Modules with a weight that could have been quantized and are not, in model order.
    pub excluded: Vec<String>,
    /// Numerics of the KV cache.
    pub kv_cache: Option<Format>,
}

impl QuantizationConfig {
    fn distinct(&self) -> Vec<LayerAlgorithm> {
        let mut seen = HashSet::new();
        self.layers
            .iter()
            .map(|(_, algorithm)| *algorithm)
            .filter(|algorithm| seen.insert(*algorithm))
            .collect()
    }

    fn ignored(&self) -> Vec<String> {
        let quantized: Vec<&str> = self.layers.iter().map(|(name, _)| name.as_str()).collect();
        collapse_excluded(&self.excluded, &quantized)
    }

    fn quantized_layers(&self) -> Value {
        let entries = self.layers.iter().map(|(name, algorithm)| (name.clone(), json!(algorithm.entry())));
        Value::Object(entries.collect())
    }

    /// Name of the whole: one algorithm's, or `MIXED_PRECISION`.
    pub fn algorithm(&self) -> Option<&'static str> {
        match self.distinct()[..] {
            [] => None,
            [one] => one.name(),
            _ => Some("MIXED_PRECISION"),
        }
    }

    /// The content of `hf_quant_config.json`.
    pub fn hf_quant_config(&self) -> Value {
        let mut quantization = Map::new();
        quantization.insert("quant_algo".to_owned(), json!(self.algorithm()));
        quantization.insert("kv_cache_quant_algo".to_owned(), json!(self.kv_cache.map(Format::name)));
        match self.distinct()[..] {
            [one] => {
                if let Some(block) = one.weight.block() {
                    quantization.insert("group_size".to_owned(), json!(block));
                }
                quantization.insert("exclude_modules".to_owned(), json!(self.ignored()));
            }
            _ => {
                quantization.insert("quantized_layers".to_owned(), self.quantized_layers());
            }
        }
        json!({ "producer": producer(), "quantization": quantization })
    }

    /// The content of `quantization_config` in `config.json`.
    pub fn config_json(&self) -> Value {
        let distinct = self.distinct();
        let mut config = Map::new();
        let groups: Map<String, Value> = distinct
            .iter()
            .enumerate()
            .map(|(i, algorithm)| {
                let targets = if distinct.len() == 1 { json!(["Linear"]) } else { self.targets(*algorithm) };
                (format!("group_{i}"), algorithm.group(targets))
            })
            .collect();
        config.insert("config_groups".to_owned(), json!(groups));
        config
            .insert("ignore".to_owned(), if distinct.len() == 1 { json!(self.ignored()) } else { json!([]) });
        config.insert("quant_algo".to_owned(), json!(self.algorithm()));
        match self.kv_cache {
            Some(Format::Fp8) => {
                let scheme = json!({ "dynamic": false, "num_bits": 8, "type": "float" });
                config.insert("kv_cache_scheme".to_owned(), scheme);
            }
            Some(other) => {
                config.insert("kv_cache_scheme".to_owned(), json!(other.name()));
            }
            None => {}
        }
        config.insert("producer".to_owned(), producer());
        config.insert("quant_method".to_owned(), json!("modelopt"));
        if distinct.len() > 1 {
            config.insert("quantized_layers".to_owned(), self.quantized_layers());
        }
        Value::Object(config)
    }

    fn targets(&self, algorithm: LayerAlgorithm) -> Value {
        let names: BTreeSet<&str> =
            self.layers.iter().filter(|(_, a)| *a == algorithm).map(|(name, _)| name.as_str()).collect();
        json!(names)
    }
}

fn producer() -> Value {
    json!({ "name": "modelopt", "version": PRODUCER_VERSION })
}

/// Shortens names of excluded modules to wildcards that hit no quantized module; sorted.
///
/// For each name, the shortest dotted prefix `p` is taken for which `p*` (or else `p.*`) is no wildcard over a
/// quantized name; a name without one stands for itself.
pub fn collapse_excluded(excluded: &[String], quantized: &[&str]) -> Vec<String> {
    let reaches_quantized = |prefix: &str| quantized.iter().any(|name| name.starts_with(prefix));
    let collapse = |name: &String| {
        let dots = name.match_indices('.').map(|(at, _)| at);
        for prefix in dots.map(|at| &name[..at]) {
            if !reaches_quantized(prefix) {
                return format!("{prefix}*");
            }
            let dotted = format!("{prefix}.");
            if !quantized.contains(&prefix) && !reaches_quantized(&dotted) {
                return format!("{dotted}*");
            }
        }
        name.clone()
    };
    excluded.iter().map(collapse).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_excluded_attention_collapses_to_one_wildcard() {
        let excluded = names(&[
            "model.embed_tokens",
            "model.layers.0.self_attn.q_proj",
            "model.layers.0.self_attn.o_proj",
            "lm_head",
        ]);
        let quantized = ["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"];
        assert_eq!(
            collapse_excluded(&excluded, &quantized),
            ["lm_head", "model.embed_tokens", "model.layers.0.self_attn*"]
        );
    }

    #[test]
    fn a_prefix_of_a_quantized_layer_number_gets_a_dot() {
        let excluded = names(&["model.layers.1.mlp.up_proj"]);
        let quantized = ["model.layers.10.mlp.up_proj"];
        assert_eq!(collapse_excluded(&excluded, &quantized), ["model.layers.1.*"]);
    }

    #[test]
    fn mixed_formats_are_listed_layer_by_layer() {
        let fp8 = LayerAlgorithm { weight: Format::Fp8, input: Some(Format::Fp8) };
        let fp4 = LayerAlgorithm { weight: Format::Nvfp4, input: Some(Format::Nvfp4) };
        let config = QuantizationConfig {
            layers: vec![("a".to_owned(), fp8), ("b".to_owned(), fp4)],
            excluded: names(&["lm_head"]),
            kv_cache: None,
        };
        let file = config.hf_quant_config();
        assert_eq!(file["quantization"]["quant_algo"], "MIXED_PRECISION");
        assert_eq!(
            file["quantization"]["quantized_layers"]["b"],
            json!({"quant_algo": "NVFP4", "group_size": 16})
        );
        assert_eq!(file["quantization"].get("exclude_modules"), None);
        assert_eq!(config.config_json()["config_groups"]["group_1"]["targets"], json!(["b"]));
    }
}
