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
    /// As Qwen3, with experts.
    Qwen3Moe,
    /// As Mistral, with experts.
    Mixtral,
}

/// The experts that some layers have in place of an MLP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mixture {
    /// Experts of a layer.
    pub experts: usize,
    /// Experts that a token goes through.
    pub per_token: usize,
    /// Width inside an expert.
    pub width: usize,
    /// Whether the weights of a token's experts are made to sum to one; Mixtral's always are.
    pub normalised: bool,
    /// Every how many layers there are experts.
    pub step: usize,
    /// Layers that have an MLP all the same.
    pub dense_layers: &'static [usize],
    /// How the file keeps the experts.
    pub storage: Storage,
    /// An expert that no token ever goes through.
    pub silent: Option<usize>,
}

/// How a file keeps the experts of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// One by one, under the names of the hub.
    Alone,
    /// In two tensors, under the names that transformers 5 has in memory.
    Fused,
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
    /// Attention window; Mistral's is written as 4096 where there is none here.
    pub window: Option<usize>,
    /// Experts.
    pub mixture: Option<Mixture>,
}

impl Specimen {
    /// Whether q, k and v have biases.
    pub fn has_biases(&self) -> bool {
        self.family == Family::Qwen2
    }

    /// Whether the heads of q and k are normalised.
    pub fn has_head_norms(&self) -> bool {
        matches!(self.family, Family::Qwen3 | Family::Qwen3Moe)
    }

    /// The experts of a layer, where it has them.
    pub fn experts_of(&self, layer: usize) -> Option<Mixture> {
        let sparse = |mixture: &Mixture| {
            (layer + 1).is_multiple_of(mixture.step) && !mixture.dense_layers.contains(&layer)
        };
        self.mixture.filter(sparse)
    }

    /// The same model in a file that keeps its experts one by one.
    pub fn alone(self) -> Self {
        Self { mixture: self.mixture.map(|mixture| Mixture { storage: Storage::Alone, ..mixture }), ..self }
    }

    /// What checkpoints call the block of router and experts, and an expert's gate, up and down projections.
    pub fn expert_names(&self) -> (&'static str, [&'static str; 3]) {
        match self.family {
            Family::Mixtral => ("block_sparse_moe", ["w1", "w3", "w2"]),
            _ => ("mlp", ["gate_proj", "up_proj", "down_proj"]),
        }
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
    window: None,
    mixture: None,
};

/// The experts from which the others differ.
const EXPERTS: Mixture = Mixture {
    experts: 6,
    per_token: 2,
    width: 96,
    normalised: true,
    step: 1,
    dense_layers: &[],
    storage: Storage::Alone,
    silent: None,
};

/// The mixture of experts from which the others differ.
const SPARSE: Specimen = Specimen { family: Family::Qwen3Moe, hidden: 128, heads: 4, mlp: 192, ..BASE };

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
        Specimen { name: "qwen3-moe-old-spelling", mixture: Some(EXPERTS), seed: 8, ..SPARSE },
        Specimen {
            name: "qwen3-moe-plain-weights-few-layers",
            layers: 5,
            mixture: Some(Mixture {
                experts: 5,
                per_token: 3,
                normalised: false,
                step: 2,
                dense_layers: &[3],
                ..EXPERTS
            }),
            spelling: Spelling::New,
            shards: 2,
            seed: 9,
            ..SPARSE
        },
        Specimen {
            name: "qwen3-moe-fused-silent-expert",
            mixture: Some(Mixture { storage: Storage::Fused, silent: Some(4), ..EXPERTS }),
            spelling: Spelling::New,
            seed: 10,
            ..SPARSE
        },
        Specimen {
            name: "mixtral-window-sharded",
            layers: 2,
            family: Family::Mixtral,
            window: Some(24),
            mixture: Some(Mixture { experts: 4, width: 160, ..EXPERTS }),
            shards: 3,
            seed: 11,
            ..SPARSE
        },
        Specimen {
            name: "mixtral-fused-silent-expert",
            family: Family::Mixtral,
            mixture: Some(Mixture { experts: 5, storage: Storage::Fused, silent: Some(3), ..EXPERTS }),
            spelling: Spelling::New,
            shards: 2,
            seed: 12,
            ..SPARSE
        },
    ]
}
