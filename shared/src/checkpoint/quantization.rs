//! `hf_quant_config.json` and `quantization_config` of `config.json`: how a checkpoint tells loaders what it is.
//!
//! Both are written, and alike: vLLM and SGLang read `config.json` first, TensorRT-LLM takes the file as authority.
//! Spelling, key order and the collapsing of excluded names are ModelOpt 0.47's.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value, json};

use crate::numerics::{Format, Nvfp4Scales};

/// Version of ModelOpt whose layout is written; loaders key on the producer.
const PRODUCER_VERSION: &str = "0.47.0";

/// Our own key, where ModelOpt's name of an algorithm leaves open whether activations are rounded and they are not.
pub(super) const WEIGHT_ONLY: &str = "weight_only";

/// Our own key, where heads of keys and queries are mixed by a Hadamard transform, of which ModelOpt's export says nothing.
pub(super) const ROTATED_CACHE: &str = "kv_cache_rotated";

/// How one linear is stored and multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerAlgorithm {
    /// Numerics of the weight.
    pub weight: Format,
    /// Numerics of the activations; `None` leaves them as they are.
    pub input: Option<Format>,
    /// Whether its input is smoothed, here or in what comes before.
    pub smoothed: bool,
    /// Rank of the unquantized branch beside the weight.
    pub low_rank: Option<usize>,
}

impl LayerAlgorithm {
    /// ModelOpt's name, `None` for a pair that cannot be stored. Where ModelOpt has no name but engines may simulate
    /// the pair, it is the name of the weight's format.
    pub const fn name(self) -> Option<&'static str> {
        use Nvfp4Scales::UnderFp8;
        Some(match (self.weight, self.input) {
            // Without its input it is declared alike; which engines load that is the audit's business.
            (Format::Fp8, None | Some(Format::Fp8)) => "FP8",
            (Format::Fp8Channel, Some(Format::Fp8Token)) => "FP8_PER_CHANNEL_PER_TOKEN",
            (Format::Fp8Block { .. }, None) => "fp8_pb_wo",
            (Format::Int8Channel, Some(Format::Int8)) => "W8A8_SQ_PER_CHANNEL",
            (Format::Int8Channel, None) => "W8A16",
            (Format::Int4 { .. }, None) => "W4A16_AWQ",
            (Format::Int4Fp8 { .. }, Some(Format::Fp8)) => "W4A8_AWQ",
            (Format::Nvfp4 { scales: UnderFp8, .. }, Some(Format::Fp8)) => "W4A8_NVFP4_FP8",
            (Format::Nvfp4 { scales: UnderFp8, .. }, _) => return None,
            (Format::Nvfp4 { .. }, None | Some(Format::Nvfp4 { .. })) if self.low_rank.is_some() => {
                "NVFP4_SVD"
            }
            (Format::Nvfp4 { .. }, None | Some(Format::Nvfp4 { .. })) if self.smoothed => "NVFP4_AWQ",
            (Format::Nvfp4 { .. }, None) => "W4A16_NVFP4",
            (Format::Nvfp4 { .. }, Some(Format::Nvfp4 { .. })) => "NVFP4",
            (Format::Mxfp4, None | Some(Format::Mxfp4)) => "mxfp4",
            (Format::Mxfp4, Some(Format::Fp8)) => "W4A8_MXFP4_FP8",
            (Format::Mxfp8, None | Some(Format::Mxfp8)) => "MXFP8",
            (Format::Mxfp6, None | Some(Format::Mxfp6)) => "MXFP6",
            (Format::Mxint8, None | Some(Format::Mxint8)) => "MXINT8",
            (Format::Nf4, None) => "NF4",
            _ => return None,
        })
    }

    /// Whether ModelOpt declares a factor on the input, which it does for all that AWQ could have made.
    const fn declares_smoothing(self) -> bool {
        match self.weight {
            Format::Int4 { .. } | Format::Int4Fp8 { .. } => true,
            Format::Nvfp4 { .. } => self.smoothed || self.low_rank.is_some(),
            _ => false,
        }
    }

    /// The block that ModelOpt declares.
    const fn group_size(self) -> Option<usize> {
        match self.weight {
            // `mxfp4` is a bare name in ModelOpt, as long as activations are not FP8.
            Format::Mxfp4 if !matches!(self.input, Some(Format::Fp8)) => None,
            weight => weight.block(),
        }
    }

    /// Whether its name leaves open that activations stay as they are: MX formats have one name with and without.
    pub(super) const fn marks_weight_only(self) -> bool {
        let is_mx = matches!(self.weight, Format::Mxfp4 | Format::Mxfp6 | Format::Mxfp8 | Format::Mxint8);
        is_mx && self.input.is_none()
    }

    /// What tells one declaration from another.
    const fn declared(self) -> (Option<&'static str>, Option<usize>, bool) {
        (self.name(), self.group_size(), self.marks_weight_only())
    }

    /// The entry of `quantized_layers`; inlined where all layers have the same.
    fn entry(self) -> Map<String, Value> {
        let mut entry = Map::new();
        entry.insert("quant_algo".to_owned(), json!(self.name()));
        if let Some(block) = self.group_size() {
            entry.insert("group_size".to_owned(), json!(block));
        }
        if self.declares_smoothing() {
            entry.insert("has_zero_point".to_owned(), json!(false));
            entry.insert("pre_quant_scale".to_owned(), json!(true));
        }
        if self.marks_weight_only() {
            entry.insert(WEIGHT_ONLY.to_owned(), json!(true));
        }
        entry
    }

    /// Whether a uniform checkpoint of it has `config_groups`.
    fn has_group(self) -> bool {
        matches!(self.name(), Some("FP8" | "NVFP4" | "W4A16_NVFP4" | "NVFP4_SVD"))
    }

    /// The entry of `config_groups` (modelopt.md §6.5).
    fn group(self, targets: Value) -> Value {
        let block = self.weight.block();
        let numbers = |bits: u32, kind: &str, block: Option<usize>| {
            let mut map = Map::new();
            map.insert("dynamic".to_owned(), json!(false));
            map.insert("num_bits".to_owned(), json!(bits));
            map.insert("type".to_owned(), json!(kind));
            map.extend(block.map(|block| ("group_size".to_owned(), json!(block))));
            map
        };
        let by_channel = |kind: &str| {
            let mut map = numbers(8, kind, None);
            map.insert("strategy".to_owned(), json!("channel"));
            map
        };
        let float = |bits, block| numbers(bits, "float", block);
        let (input, weights) = match self.name() {
            Some("FP8") => (Some(float(8, None)), float(8, None)),
            Some("FP8_PER_CHANNEL_PER_TOKEN") => (Some(float(8, None)), by_channel("float")),
            Some("NVFP4" | "NVFP4_SVD") => (Some(float(4, block)), float(4, block)),
            Some("W4A16_NVFP4") => (None, float(4, block)),
            Some("W4A16_AWQ") => (None, numbers(4, "int", block)),
            // Eight bits for activations of NVFP4 are odd, but literal.
            Some("NVFP4_AWQ" | "W4A8_AWQ") => (Some(float(8, block)), float(4, block)),
            Some("W8A16") => (None, numbers(8, "int", None)),
            Some("W8A8_SQ_PER_CHANNEL") => (Some(numbers(8, "int", None)), by_channel("int")),
            Some("W4A8_NVFP4_FP8" | "W4A8_MXFP4_FP8") => (Some(float(8, None)), float(4, block)),
            Some("MXFP8") => (Some(float(8, block)), float(8, block)),
            name => return json!({ "quant_algo": name, "targets": targets }),
        };
        let mut group = Map::new();
        group.extend(input.map(|input| ("input_activations".to_owned(), json!(input))));
        group.insert("weights".to_owned(), json!(weights));
        if self.low_rank.is_some() {
            group.insert("has_zero_point".to_owned(), json!(false));
            group.insert("pre_quant_scale".to_owned(), json!(true));
        }
        group.insert("targets".to_owned(), targets);
        json!(group)
    }
}

/// How keys and values are stored in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheAlgorithm {
    /// Their numerics.
    pub format: Format,
    /// Whether an offset is taken off before rounding, and added back.
    pub offset: bool,
    /// Whether a Hadamard transform mixes each head of keys and queries before.
    pub rotated: bool,
}

impl CacheAlgorithm {
    /// ModelOpt's name; that of FP8 does not tell of offsets.
    const fn name(self) -> &'static str {
        match (self.format, self.offset) {
            (Format::Nvfp4 { .. }, true) => "NVFP4_AFFINE",
            (format, _) => format.name(),
        }
    }
}

impl From<Format> for CacheAlgorithm {
    fn from(format: Format) -> Self {
        Self { format, offset: false, rotated: false }
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
