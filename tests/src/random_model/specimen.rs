//! The list of random models: each one covers shapes or spellings that no other does.

/// A decoder family of the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// No biases, no head norms.
    Llama,
    /// As Llama, with a sliding window in the config.
    Mistral,
    /// Biases on q, k and v.
    Qwen2,
    /// RMS norms on the heads of q and k.
    Qwen3,
}

/// How positions are rotated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rope {
    /// Plain.
    Plain,
    /// All positions divided by the factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Low frequencies divided, high ones kept, a blend in between.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Context length before scaling.
        original: usize,
    },
    /// Frequencies blended by how often they turn within the original context; attention scaled.
    Yarn {
        /// The divisor of low frequencies.
        factor: f64,
        /// Context length before scaling.
        original: usize,
    },
}

/// How `config.json` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// transformers 4: `torch_dtype`, `rope_theta`, `rope_scaling`.
    Old,
    /// transformers 5: `dtype`, `rope_parameters`.
    New,
}

/// One random model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Specimen {
    /// Name; also what its goldens are called.
    pub name: &'static str,
    /// Decoder family.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the MLP.
    pub mlp: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head; need not be `hidden / heads`.
    pub head_dim: usize,
    /// Whether the output matrix is the embedding.
    pub tied: bool,
    /// Base of the rotary frequencies.
    pub theta: f64,
    /// How positions are rotated.
    pub rope: Rope,
    /// How the config is written.
    pub spelling: Spelling,
    /// Number of safetensors files.
    pub shards: usize,
    /// Decides every weight.
    pub seed: u64,
}

impl Specimen {
    /// Whether q, k and v have biases.
    pub fn has_biases(&self) -> bool {
        self.family == Family::Qwen2
    }

    /// Whether the heads of q and k are normalised.
    pub fn has_head_norms(&self) -> bool {
        self.family == Family::Qwen3
    }
}

/// Tokens of the example's vocabulary, which every random model shares.
pub const VOCABULARY: usize = 4096;

/// The start from which the others differ.
const BASE: Specimen = Specimen {
    name: "",
    family: Family::Llama,
    hidden: 192,
    mlp: 320,
    layers: 3,
    heads: 6,
    kv_heads: 2,
    head_dim: 32,
    tied: false,
    theta: 10_000.0,
    rope: Rope::Plain,
    spelling: Spelling::Old,
    shards: 1,
    seed: 1,
};

/// Every random model.
pub fn specimens() -> Vec<Specimen> {
    vec![
        Specimen { name: "llama-grouped-heads", theta: 500_000.0, ..BASE },
        Specimen {
            name: "llama3-rope-tied-sharded",
            rope: Rope::Llama3 { factor: 8.0, original: 64 },
            tied: true,
            shards: 3,
            seed: 2,
            ..BASE
        },
        Specimen {
            name: "llama-linear-rope",
            rope: Rope::Linear { factor: 4.0 },
            kv_heads: 6,
            seed: 3,
            ..BASE
        },
        Specimen {
            name: "mistral-wide-heads-sharded",
            family: Family::Mistral,
            hidden: 128,
            heads: 4,
            head_dim: 64,
            shards: 2,
            seed: 4,
            ..BASE
        },
        Specimen {
            name: "qwen2-biases-tied",
            family: Family::Qwen2,
            tied: true,
            theta: 1_000_000.0,
            spelling: Spelling::New,
            seed: 5,
            ..BASE
        },
        Specimen {
            name: "qwen3-head-norms-yarn",
            family: Family::Qwen3,
            hidden: 128,
            heads: 4,
            kv_heads: 1,
            head_dim: 96,
            theta: 1_000_000.0,
            rope: Rope::Yarn { factor: 4.0, original: 64 },
            spelling: Spelling::New,
            shards: 2,
            seed: 6,
            ..BASE
        },
        Specimen {
            name: "qwen3-tied-old-spelling",
            family: Family::Qwen3,
            heads: 12,
            kv_heads: 4,
            head_dim: 16,
            tied: true,
            seed: 7,
            ..BASE
        },
    ]
}
