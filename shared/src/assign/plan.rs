//! What a recipe will do to a model, told from headers alone: the plan that a person reads before anything runs.

use serde::{Deserialize, Serialize};

use super::{ModuleFamily, Note};
use crate::audit::engines::EngineVerdict;

/// What one recipe will do to one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the recipe, or `bf16` and the like for the model as it is.
    pub recipe: String,
    /// Hash that names the assignment.
    pub assignment: String,
    /// Modules in model order.
    pub modules: Vec<ModulePlan>,
    /// What the recipe's patterns reached.
    pub coverage: Coverage,
    /// The checkpoint in figures.
    pub totals: Totals,
    /// What a person should know before it runs, warnings first.
    pub notes: Vec<Note>,
    /// What each engine will do with the checkpoint; empty where it was not asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub engines: Vec<EngineVerdict>,
}

/// One module with weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModulePlan {
    /// Full name, as in `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// What it is.
    pub kind: ModuleKind,
    /// Numerics of the stored weight: a format's name, or the model's dtype.
    pub weight: String,
    /// Numerics of the activations that it multiplies with.
    pub input: String,
    /// Numerics of its output: a KV cache format for k_proj and v_proj, else the model's dtype.
    pub output: String,
    /// Bytes of its tensors in the checkpoint, scales included.
    pub bytes: u64,
    /// Bytes of its tensors in the source.
    pub source_bytes: u64,
}

/// What a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModuleKind {
    /// A matrix that activations are multiplied with.
    Linear,
    /// A table of token vectors.
    Embedding,
    /// Anything else with tensors: norms mostly.
    Other,
}

/// What the recipe's patterns reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// All linear modules.
    pub linears: usize,
    /// Linear modules by weight and input numerics, most frequent first: `("NVFP4 × NVFP4", 56)`.
    pub formats: Vec<(String, usize)>,
    /// Linears and embeddings of each part of the model, and their numerics.
    #[serde(default)]
    pub families: Vec<FamilyCoverage>,
    /// Each entry of the recipe in order.
    pub patterns: Vec<PatternReach>,
    /// Names of linear modules that stay as they are.
    pub unquantized: Vec<String>,
    /// Numerics of the KV cache, and how many attention modules have it.
    pub kv_cache: Option<(String, usize)>,
}

/// What becomes of one part of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyCoverage {
    /// The part.
    pub family: ModuleFamily,
    /// Its modules.
    pub modules: usize,
    /// Modules by weight and input numerics, most frequent first; what is not quantized has the model's dtype.
    pub numerics: Vec<(String, usize)>,
}

/// How far one entry of a recipe reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternReach {
    /// The pattern as written.
    pub pattern: String,
    /// Whether it switches quantizers on.
    pub enables: bool,
    /// How many quantizers it matched.
    pub matched: usize,
}

/// A checkpoint in figures. Definitions: `docs/portfolio.md`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Bytes of all safetensors files, headers included; exact.
    pub bytes: u64,
    /// Bytes of the source's safetensors files.
    pub source_bytes: u64,
    /// `bytes / source_bytes`.
    pub ratio: f64,
    /// Stored bits of all linear weights with their scales per weight element.
    pub effective_bits: f64,
    /// Bytes of weights and scales read to produce one token.
    pub active_bytes_per_token: u64,
    /// Weight bits × activation bits per multiply, summed, relative to bf16.
    pub compute: f64,
    /// Parameters of the model.
    #[serde(default)]
    pub parameters: u64,
}
