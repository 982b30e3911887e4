//! `hf_quant_config.json` and `quantization_config` of `config.json`: how a checkpoint tells loaders what it is.
//!
//! Both are written, and alike: vLLM and SGLang read `config.json` first, TensorRT-LLM takes the file as authority.
//! Spelling, key order and the collapsing of excluded names are ModelOpt 0.47's.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value, json};

use super::algorithm::{CacheAlgorithm, LayerAlgorithm, ROTATED_CACHE, WEIGHT_ONLY};
use crate::numerics::Format;

/// Version of ModelOpt whose layout is written; loaders key on the producer.
const PRODUCER_VERSION: &str = "0.47.0";

/// What a checkpoint says of its quantization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizationConfig {
    /// Quantized linears in model order.
    pub layers: Vec<(String, LayerAlgorithm)>,
    /// Modules with a weight that could have been quantized and are not, in model order.
    pub excluded: Vec<String>,
    /// Numerics of the KV cache.
    pub kv_cache: Option<CacheAlgorithm>,
}

impl QuantizationConfig {
    /// One algorithm of each declaration: formats that differ only in how scales were found are declared alike.
    fn distinct(&self) -> Vec<LayerAlgorithm> {
        let mut seen = HashSet::new();
        self.layers
            .iter()
            .map(|(_, algorithm)| *algorithm)
            .filter(|algorithm| seen.insert(algorithm.declared()))
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
        quantization.insert("kv_cache_quant_algo".to_owned(), json!(self.kv_cache.map(CacheAlgorithm::name)));
        match self.distinct()[..] {
            [one] => {
                quantization.extend(one.entry());
                quantization.insert("exclude_modules".to_owned(), json!(self.ignored()));
            }
            _ => {
                quantization.insert("quantized_layers".to_owned(), self.quantized_layers());
            }
        }
        json!({ "producer": producer(), "quantization": quantization })
    }

    /// Whether the checkpoint is one for the bitsandbytes package, not in ModelOpt's layout.
    pub fn is_bitsandbytes(&self) -> bool {
        !self.layers.is_empty() && self.layers.iter().all(|(_, algorithm)| algorithm.weight == Format::Nf4)
    }

    /// What transformers hands to bitsandbytes.
    fn bitsandbytes(&self) -> Value {
        json!({
            "quant_method": "bitsandbytes",
            "load_in_4bit": true,
            "load_in_8bit": false,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": true,
            "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": "uint8",
            "llm_int8_skip_modules": self.excluded,
        })
    }

    /// The content of `quantization_config` in `config.json`.
    pub fn config_json(&self) -> Value {
        if self.is_bitsandbytes() {
            return self.bitsandbytes();
        }
        let distinct = self.distinct();
        let mut config = Map::new();
        let groups: Map<String, Value> = distinct
            .iter()
            .filter(|algorithm| distinct.len() > 1 || algorithm.has_group())
            .enumerate()
            .map(|(i, algorithm)| {
                let targets = if distinct.len() == 1 { json!(["Linear"]) } else { self.targets(*algorithm) };
                (format!("group_{i}"), algorithm.group(targets))
            })
            .collect();
        if !groups.is_empty() {
            config.insert("config_groups".to_owned(), json!(groups));
        }
        config
            .insert("ignore".to_owned(), if distinct.len() == 1 { json!(self.ignored()) } else { json!([]) });
        config.insert("quant_algo".to_owned(), json!(self.algorithm()));
        match self.kv_cache {
            Some(CacheAlgorithm { format: Format::Fp8, .. }) => {
                let scheme = json!({ "dynamic": false, "num_bits": 8, "type": "float" });
                config.insert("kv_cache_scheme".to_owned(), scheme);
            }
            Some(other) => {
                config.insert("kv_cache_scheme".to_owned(), json!(other.name()));
            }
            None => {}
        }
        if self.kv_cache.is_some_and(|cache| cache.rotated) {
            config.insert(ROTATED_CACHE.to_owned(), json!(true));
        }
        config.insert("producer".to_owned(), producer());
        config.insert("quant_method".to_owned(), json!("modelopt"));
        if distinct.len() > 1 {
            config.insert("quantized_layers".to_owned(), self.quantized_layers());
        }
        // A uniform declaration has its block in the groups, where it has any, and otherwise nowhere.
        if let [one] = distinct[..]
            && one.marks_weight_only()
        {
            config.insert(WEIGHT_ONLY.to_owned(), json!(true));
        }
        Value::Object(config)
    }

    fn targets(&self, algorithm: LayerAlgorithm) -> Value {
        let names: BTreeSet<&str> = self
            .layers
            .iter()
            .filter(|(_, a)| a.declared() == algorithm.declared())
            .map(|(name, _)| name.as_str())
            .collect();
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
        let plain =
            |format| LayerAlgorithm { weight: format, input: Some(format), smoothed: false, low_rank: None };
        let (fp8, fp4) = (plain(Format::Fp8), plain(Format::NVFP4));
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
