//! What a checkpoint declares of its quantization, read back: the algorithm of every linear, and the KV cache's format.
//!
//! `config.json` decides, as for vLLM and SGLang; block sizes that it does not repeat are taken from `hf_quant_config.json`.
//! NF4 checkpoints are declared as transformers and bitsandbytes have it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::algorithm::{CacheAlgorithm, LayerAlgorithm, ROTATED_CACHE, WEIGHT_ONLY};
use crate::numerics::{Format, Nvfp4Scales};
use crate::recipe::Pattern;
use crate::{Error, Result};

/// What a checkpoint declares of its quantization.
#[derive(Debug, Clone)]
pub struct Declared {
    layers: Layers,
    /// How keys and values are stored, where they are quantized; of FP8, only the tensors tell whether there are offsets.
    pub kv_cache: Option<CacheAlgorithm>,
}

#[derive(Debug, Clone)]
enum Layers {
    /// One algorithm for all linears that no pattern leaves out.
    Uniform(Option<LayerAlgorithm>, Vec<Pattern>),
    /// An algorithm for each linear that is named.
    Each(BTreeMap<String, LayerAlgorithm>),
}

impl Declared {
    /// Reads the declaration of a checkpoint folder whose `config.json` is `config`; `None` where it declares nothing.
    ///
    /// # Errors
    /// A file cannot be read, or the declaration is of a method or algorithm that nothing here decodes.
    pub fn open(folder: &Path, config: &Map<String, Value>) -> Result<Option<Self>> {
        let Some(own) = config.get("quantization_config").filter(|own| !own.is_null()) else {
            return Ok(None);
        };
        let path = folder.join("hf_quant_config.json");
        let beside = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| {
                Error::input(format!("not JSON: {e}")).at(&path).hint("make the checkpoint again")
            })?,
            Err(_) => Value::Null,
        };
        Self::read(own, &beside["quantization"])
            .map(Some)
            .map_err(|e| e.at(folder.join("config.json")).key("quantization_config"))
    }

    /// Reads `quantization_config`, with the `quantization` of `hf_quant_config.json` or null.
    ///
    /// # Errors
    /// The declaration is of a method or algorithm that nothing here decodes.
    pub fn read(own: &Value, beside: &Value) -> Result<Self> {
        match own["quant_method"].as_str() {
            Some("bitsandbytes") => return Self::bitsandbytes(own),
            Some("modelopt" | "modelopt_fp4" | "modelopt_mixed") | None => {}
            Some(other) => return Err(unknown("method", other)),
        }
        let rotated = own[ROTATED_CACHE] == true;
        let kv_cache = kv_cache(&own["kv_cache_scheme"])?.map(|cache| CacheAlgorithm { rotated, ..cache });
        let layers = match own["quant_algo"].as_str() {
            Some("MIXED_PRECISION") => {
                let listed = own["quantized_layers"].as_object().into_iter().flatten();
                let each = listed.map(|(name, entry)| Ok((name.clone(), algorithm(entry, entry)?)));
                Layers::Each(each.collect::<Result<_>>()?)
            }
            Some(_) => Layers::Uniform(Some(algorithm(own, beside)?), patterns(&own["ignore"])),
            None => Layers::Uniform(None, Vec::new()),
        };
        Ok(Self { layers, kv_cache })
    }

    fn bitsandbytes(own: &Value) -> Result<Self> {
        let kind = own["bnb_4bit_quant_type"].as_str().unwrap_or("of 8 bits");
        if own["load_in_4bit"] != true || kind != "nf4" {
            return Err(unknown("bitsandbytes type", kind));
        }
        let skipped = match own["llm_int8_skip_modules"].as_array() {
            Some(_) => patterns(&own["llm_int8_skip_modules"]),
            None => vec![Pattern::new("lm_head")],
        };
        let nf4 = LayerAlgorithm { weight: Format::Nf4, input: None, smoothed: false, low_rank: None };
        Ok(Self { layers: Layers::Uniform(Some(nf4), skipped), kv_cache: None })
    }

    /// The algorithm of a linear by its full name, `None` where it is left as it is. Of a low-rank branch the rank is 0
    /// where the declaration leaves it to the tensors.
    pub fn algorithm(&self, linear: &str) -> Option<LayerAlgorithm> {
        match &self.layers {
            Layers::Uniform(algorithm, ignored) => {
                algorithm.filter(|_| !ignored.iter().any(|pattern| pattern.matches(linear)))
            }
            Layers::Each(each) => each.get(linear).copied(),
        }
    }

    /// Names of linears that are declared one by one, in a mixed checkpoint.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let each = match &self.layers {
            Layers::Each(each) => Some(each),
            Layers::Uniform(..) => None,
        };
        each.into_iter().flatten().map(|(name, _)| name.as_str())
    }
}

fn patterns(names: &Value) -> Vec<Pattern> {
    names.as_array().into_iter().flatten().filter_map(Value::as_str).map(Pattern::new).collect()
}

fn unknown(what: &str, name: &str) -> Error {
    Error::input(format!("nothing here decodes the quantization {what} `{name}`"))
        .hint("`qlaunch quantize MODEL` makes checkpoints that can be evaluated; `qlaunch recipe list` shows what they can be")
}

/// The algorithm of an entry; `beside` says what the entry leaves out.
fn algorithm(entry: &Value, beside: &Value) -> Result<LayerAlgorithm> {
    let name = entry["quant_algo"].as_str().unwrap_or_default();
    let block = |usual: u32| {
        let said = [
            &entry["group_size"],
            &beside["group_size"],
            &entry["config_groups"]["group_0"]["weights"]["group_size"],
        ];
        said.into_iter().find_map(Value::as_u64).and_then(|block| u32::try_from(block).ok()).unwrap_or(usual)
    };
    let nvfp4 = |usual, scales| Format::Nvfp4 { block: block(usual), scales };
    let (fp4, activation) = (nvfp4(16, Nvfp4Scales::Dynamic), Some(nvfp4(16, Nvfp4Scales::Dynamic)));
    let weight_only = entry[WEIGHT_ONLY] == true || beside[WEIGHT_ONLY] == true;
    let alike = |format| (format, Some(format).filter(|_| !weight_only));
    let (weight, input) = match name {
        "FP8" => alike(Format::Fp8),
        "FP8_PER_CHANNEL_PER_TOKEN" => (Format::Fp8Channel, Some(Format::Fp8Token)),
        // ModelOpt does not say the side of a square; its recipes have this one.
        "fp8_pb_wo" => (Format::Fp8Block { block: block(128) }, None),
        "W8A8_SQ_PER_CHANNEL" => (Format::Int8Channel, Some(Format::Int8)),
        "W8A16" => (Format::Int8Channel, None),
        "W4A16_AWQ" => (Format::Int4 { block: block(128) }, None),
        "W4A8_AWQ" => (Format::Int4Fp8 { block: block(128) }, Some(Format::Fp8)),
        "NVFP4" | "NVFP4_AWQ" | "NVFP4_SVD" => (fp4, activation),
        "W4A16_NVFP4" => (fp4, None),
        "W4A8_NVFP4_FP8" => (nvfp4(32, Nvfp4Scales::UnderFp8), Some(Format::Fp8)),
        "mxfp4" => alike(Format::Mxfp4),
        "W4A8_MXFP4_FP8" => (Format::Mxfp4, Some(Format::Fp8)),
        "MXFP8" => alike(Format::Mxfp8),
        "MXFP6" => alike(Format::Mxfp6),
        "MXINT8" => alike(Format::Mxint8),
        "NF4" => (Format::Nf4, None),
        other => return Err(unknown("algorithm", other)),
    };
    let low_rank = (name == "NVFP4_SVD").then(|| entry["lora_rank"].as_u64().unwrap_or_default() as usize);
    Ok(LayerAlgorithm {
        weight,
        input,
        smoothed: entry["pre_quant_scale"] == true || name.ends_with("AWQ"),
        low_rank,
    })
}

/// The format of keys and values.
fn kv_cache(scheme: &Value) -> Result<Option<CacheAlgorithm>> {
    match scheme {
        Value::Null => Ok(None),
        Value::Object(numbers)
            if numbers.get("num_bits") == Some(&8.into()) && numbers["type"] == "float" =>
        {
            Ok(Some(Format::Fp8.into()))
        }
        Value::String(name) => match name.as_str() {
            "FP8" => Ok(Some(Format::Fp8.into())),
            "NVFP4" => Ok(Some(Format::NVFP4.into())),
            "NVFP4_AFFINE" => Ok(Some(CacheAlgorithm { offset: true, ..Format::NVFP4.into() })),
            other => Err(unknown("of the KV cache", other)),
        },
        other => Err(unknown("of the KV cache", &other.to_string())),
    }
}

#[cfg(test)]
#[path = "declared_tests.rs"]
mod tests;
