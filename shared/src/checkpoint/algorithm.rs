//! How one linear, and the KV cache, are stored and multiplied, and ModelOpt's names for that.

use serde_json::{Map, Value, json};

use crate::numerics::{Format, Nvfp4Scales};

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

    /// Whether its name leaves open that activations stay as they are: FP8 and MX formats have one name with and without.
    pub(super) const fn marks_weight_only(self) -> bool {
        use Format::{Fp8, Mxfp4, Mxfp6, Mxfp8, Mxint8};
        matches!(self.weight, Fp8 | Mxfp4 | Mxfp6 | Mxfp8 | Mxint8) && self.input.is_none()
    }

    /// What tells one declaration from another.
    pub(super) const fn declared(self) -> (Option<&'static str>, Option<usize>, bool) {
        (self.name(), self.group_size(), self.marks_weight_only())
    }

    /// The entry of `quantized_layers`; inlined where all layers have the same.
    pub(super) fn entry(self) -> Map<String, Value> {
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
    pub(super) fn has_group(self) -> bool {
        matches!(self.name(), Some("FP8" | "NVFP4" | "W4A16_NVFP4" | "NVFP4_SVD"))
    }

    /// The entry of `config_groups` (modelopt.md §6.5).
    pub(super) fn group(self, targets: Value) -> Value {
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
    pub(super) const fn name(self) -> &'static str {
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
